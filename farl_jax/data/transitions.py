"""The newest online steps of a training, on disk, so that they can be exported.

A file `<first>-<last>.npz` holds the env steps first + 1 to last, as arrays [T, N, ...] of whole
rollouts. Files that follow each other join to whole episodes.
"""

import re
from collections import deque
from pathlib import Path

import numpy as np

from farl_jax.data.dataset import (
    FIELDS,
    OPTIONAL,
    Dataset,
    DatasetError,
    check_fields,
    concatenate,
    cut,
    fields_of,
    read_arrays,
)
from farl_jax.storage.files import replacing
from farl_jax.types import Transition

FOLDER = "transitions"
_ALONE = ("diverged", "intervened")
"""Fields that demonstrations do not have."""
_NAME = re.compile(r"(\d{12})-(\d{12})\.npz")

Steps = dict[str, np.ndarray]
"""Field -> [T, N, ...]."""


class Recorder:
    """Keeps the newest steps of one training in a folder.

    Rollouts wait in memory until `write`. At least the newest `limit` steps that were written are
    there, or all of them, and one file more at most.
    """

    def __init__(self, folder: Path, limit: int, step: int) -> None:
        """Go on after `step` env steps. Files of later steps, which will be made again, go."""
        self._folder, self._limit, self._step = Path(folder), limit, step
        self._waiting: deque[tuple[int, Steps]] = deque()  # (last env step, a rollout)
        for path, (_, last) in _files(self._folder).items():
            if last > step:
                path.unlink()

    def add(self, rollout: Transition) -> None:
        """Remember a rollout [T, N] of NumPy arrays."""
        own = {"diverged": rollout.diverged, "intervened": rollout.decision.intervened}
        size = rollout.reward.size
        self._step += size
        self._waiting.append((self._step, fields_of(rollout) | own))
        while (len(self._waiting) - 1) * size >= self._limit:
            self._waiting.popleft()

    def write(self, step: int) -> None:
        """Write what waits up to env step `step`, and remove the files beyond the limit.

        Raises:
            OSError: a disk error; it names the file.
        """
        parts = []
        while self._waiting and self._waiting[0][0] <= step:
            last, steps = self._waiting.popleft()
            parts.append(steps)
        if not parts:
            return
        joined = {name: np.concatenate([own[name] for own in parts]) for name in parts[0]}
        first = last - joined["reward"].size
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{first:012d}-{last:012d}.npz"
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **joined)
        kept = _files(self._folder)
        total = sum(last - first for first, last in kept.values())
        for path, (first, last) in kept.items():
            total -= last - first
            if total < self._limit:
                break
            path.unlink()


def read(folder: Path) -> Dataset | None:
    """Return the recorded steps as episodes, or None if there are none.

    `intervened` is a field more: whether the recovery acted. Steps on which the simulator diverged
    are left out. The first and last piece of an environment's steps may be a part of an episode.

    Raises:
        DatasetError: a file is damaged; it names the file.
    """
    rows: list[list[Steps]] = []  # of files that follow each other
    end = None
    for path, (first, last) in _files(Path(folder)).items():
        if first != end:
            rows.append([])
        rows[-1].append(_read(path, last - first))
        end = last
    parts = []
    for row in rows:
        joined = {name: np.concatenate([steps[name] for steps in row]) for name in row[0]}
        keep = ~joined.pop("diverged")
        parts.append(cut(joined, keep))
    if not parts:
        return None
    data = concatenate(*parts) | {"intervened": np.concatenate([p["intervened"] for p in parts])}
    check_fields(Path(folder), data)
    return data


def _files(folder: Path) -> dict[Path, tuple[int, int]]:
    """File -> its (first, last) env step, oldest first."""
    found = [(path, _NAME.fullmatch(path.name)) for path in sorted(folder.glob("*.npz"))]
    return {path: (int(name[1]), int(name[2])) for path, name in found if name}


def _read(path: Path, size: int) -> Steps:
    try:
        steps = read_arrays(path, {*FIELDS, *OPTIONAL, *_ALONE} - {"episode"})
        shape = steps["reward"].shape
        needed = {*FIELDS, *_ALONE} - {"episode"}
        if missing := sorted(needed - set(steps)):
            raise ValueError(f"no {missing[0]}")
        if len(shape) != 2 or any(own.shape[:2] != shape for own in steps.values()):
            raise ValueError("fields differ in shape")
        if steps["reward"].size != size:
            raise ValueError(f"it holds {steps['reward'].size} steps, not {size}")
    except Exception as error:  # a damaged file may raise any
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(f"{path} cannot be read ({reason}); delete it") from error
    return steps
