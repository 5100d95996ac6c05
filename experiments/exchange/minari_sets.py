"""Read Minari datasets as episodes, and write ours as Minari datasets."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import UserError
from experiments.exchange.episodes import INTENDED, MARGIN, Episode
from farl_jax.data.dataset import Dataset, DatasetError

STORE = "MINARI_DATASETS_PATH"
"""Environment variable of Minari's local store."""


def _minari(what: str) -> Any:
    try:
        import minari
    except ModuleNotFoundError as error:
        raise UserError(f"{what} needs minari: pip install 'farl-jax[minari]'") from error
    return minari


def read(source: str) -> tuple[list[Episode], np.ndarray, np.ndarray]:
    """Return a dataset's episodes and the bounds [A] of its actions.

    Args:
        source: its ID in the local store, or its folder.

    Raises:
        UserError: minari is not installed.
        DatasetError: it does not exist, is damaged, or holds images or discrete actions.
    """
    minari = _minari(source)
    try:
        folder = Path(source)
        if folder.is_dir():
            inner = folder / "data"
            found = minari.MinariDataset(inner if inner.is_dir() else folder)
        else:
            found = minari.load_dataset(source)
        space = found.action_space
        low, high = getattr(space, "low", None), getattr(space, "high", None)
        episodes = [_episode(own) for own in found.iterate_episodes()]
    except DatasetError:
        raise
    except Exception as error:  # damaged bytes make the libraries raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"{source} is neither a file nor a readable Minari dataset: {reason}"
        ) from error
    if low is None or low.ndim != 1 or not np.isfinite([low, high]).all():
        told = " ".join(str(space).split())[:80]
        raise DatasetError(f"{source}: its actions must be a flat Box with bounds; got {told}")
    return episodes, low, high


def write(folder: Path, task: str, kind: str, data: Dataset, what: str = "demonstrations") -> str:
    """Write one kind of data into the Minari store `folder`; return the dataset's ID.

    Infos of each step, after one of the reset: cost (1.0 at a failure), success, intended, margin
    if known, and intervened (the recovery acted) of online steps. Actions are in [-1, 1].

    Raises:
        UserError: minari is not installed.
    """
    minari = _minari("farl demos export")
    from gymnasium.spaces import Box
    from minari.data_collector import EpisodeBuffer

    name = f"farl/{re.sub(r'[^A-Za-z0-9_-]+', '-', task).strip('-')}/{kind}-v0"
    wide = data["obs"].shape[1], data["action"].shape[1]
    spaces = {
        "observation_space": Box(-np.inf, np.inf, wide[:1], np.float32),
        "action_space": Box(-1.0, 1.0, wide[1:], np.float32),
    }
    cuts = np.flatnonzero(np.diff(data["episode"])) + 1
    parts = [{k: v[rows] for k, v in data.items()} for rows in _ranges(cuts, len(data["episode"]))]
    buffers = [EpisodeBuffer(id=i, **_buffer(own)) for i, own in enumerate(parts)]
    with _store(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # missing authors and reference scores
        minari.create_dataset_from_buffers(
            name,
            buffers,
            **spaces,
            description=f"{kind} {what} of {task}, by FARL-JAX",
        )
    return name


def _ranges(cuts: np.ndarray, length: int) -> list[slice]:
    edges = [0, *cuts.tolist(), length]
    return [slice(a, b) for a, b in pairwise(edges)]


def _buffer(own: Dataset) -> dict[str, Any]:
    """One episode as Minari wants it: observations and infos have a row more, that of the reset."""
    reset = lambda values: np.concatenate([np.zeros_like(values[:1]), values])
    infos = {"cost": reset(own["failure"].astype(np.float32)), INTENDED: reset(own[INTENDED])}
    infos |= {name: reset(own[name]) for name in ("success", "intervened") if name in own}
    if MARGIN in own:
        infos[MARGIN] = np.concatenate([own[MARGIN], own[f"next_{MARGIN}"][-1:]])
    return {
        "observations": np.concatenate([own["obs"], own["next_obs"][-1:]]),
        "actions": own["action"],
        "rewards": own["reward"],
        "terminations": own["terminated"],
        "truncations": own["truncated"],
        "infos": infos,
    }


def _episode(own: Any) -> Episode:
    infos = _flat(own.infos or {})
    margin = infos.pop(MARGIN, None)
    length = len(own.rewards)
    signals = {k: v[1:] if len(v) == length + 1 else v for k, v in infos.items()}
    signals = {k: v for k, v in signals.items() if len(v) == length}
    return Episode(
        _observations(own.observations),
        np.asarray(own.actions),
        own.rewards,
        own.terminations,
        own.truncations,
        signals,
        margin,
    )


def _observations(found: Any) -> np.ndarray:
    """Return [T + 1, D] of a Box, or of a Dict of boxes in sorted order of keys."""
    if isinstance(found, dict):
        return np.concatenate([np.asarray(found[k], np.float32) for k in sorted(found)], axis=-1)
    return np.asarray(found)


def _flat(infos: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return numeric arrays; those in groups are named NAME/KEY."""
    flat: dict[str, np.ndarray] = {}
    for name, value in infos.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": inner for key, inner in _flat(value).items()}
        elif isinstance(value, np.ndarray) and value.ndim and value.dtype.kind in "biuf":
            flat[name] = value
    return flat


@contextmanager
def _store(folder: Path) -> Iterator[None]:
    """Let Minari write below `folder`."""
    before = os.environ.get(STORE)
    os.environ[STORE] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[STORE]
        else:
            os.environ[STORE] = before
