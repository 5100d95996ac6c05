"""Whole-state checkpoints with Orbax V1: atomic saves, strict restores, and checks for damage.

A step is one folder, `<folder>/<step>`. It is renamed into place when it is complete and has been
read back. It has one Orbax checkpointable per item, a flat dictionary from leaf path to array, and
the manifest (`farl_jax.storage.manifest`). Orbax loads wrong shapes silently, and does not
tell kinds of damage apart. So the folder is first checked against the manifest.
"""

import errno
import fcntl
import os
import resource
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from farl_jax import devices
from farl_jax.storage import manifest
from farl_jax.storage.leaves import (
    PyTree,
    as_json,
    bytes_of,
    check_expected,
    check_items,
    host_leaves,
    paths_of,
    spec_of,
    target_of,
    unplaced,
)
from farl_jax.storage.manifest import CheckpointError, Damaged
from farl_jax.storage.quiet import Failed, quietly

STAGING = ".incoming"
_FREE = min(512, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)


def save(
    folder: Path,
    step: int,
    items: Mapping[str, PyTree],
    metadata: Mapping[str, Any],
    *,
    keep: int = 2,
    score: float | None = None,
) -> Path:
    """Write all of `items` as step `step`, and return its complete folder.

    Leaves are arrays, numbers or typed PRNG keys; None and empty nodes are allowed. `metadata` is
    JSON. A step of the same number is replaced. Afterwards only the newest `keep` intact steps and
    the one with the highest `score` remain, and no later step. With several processes all call
    this, each with whole leaves, and the first one writes.

    Raises:
        CheckpointError: a leaf or the metadata cannot be stored, or a disk error.
    """
    if step < 0 or keep < 1:
        raise CheckpointError(f"step must be at least 0 and keep at least 1; got {step} and {keep}")
    leaves = {name: host_leaves(name, tree) for name, tree in items.items()}
    folder = Path(folder).absolute()
    body = {"format": manifest.FORMAT, "step": step, "metadata": as_json(metadata), "score": score}
    stored = {  # Orbax stores no empty arrays and no empty items
        item: {path: leaf for path, leaf in tree.items() if leaf.size}
        for item, tree in leaves.items()
    }
    body["items"] = {
        item: {path: spec_of(leaf) for path, leaf in tree.items()} for item, tree in leaves.items()
    }
    try:
        quietly(lambda: _write_step(folder, body, stored))
        if devices.leads():
            _prune(folder, step, keep)
    except (Failed, OSError) as error:
        shutil.rmtree(folder / f"{step}{STAGING}", ignore_errors=True)
        room = "free some space; " if os.strerror(errno.ENOSPC) in str(error) else ""
        way = f"{room}older steps are intact; --resume continues from them"
        reason = f"cannot save step {step} in {folder}: {error}; {way}"
        raise CheckpointError(reason) from error
    return devices.path_of_first(folder / str(step))


def restore(
    folder: Path,
    abstract: Mapping[str, PyTree],
    *,
    step: int | None = None,
    expect: Mapping[str, Any] | None = None,
) -> tuple[int, dict[str, PyTree], dict[str, Any]]:
    """Load the items named in `abstract` and return (step, items, metadata).

    `abstract` has trees from `jax.eval_shape` (or examples). Their structure, shapes and dtypes
    must equal the saved ones, and the result has their types. A leaf is placed by the abstract
    leaf's sharding, else on the default device. `step=None` takes the newest intact step, and warns
    of each damaged one. Entries of `expect` must equal the metadata's. Nothing on disk changes.

    Raises:
        CheckpointError: no intact checkpoint, or another one than expected.
    """
    folder = Path(folder).absolute()
    for candidate in _candidates(folder, step):
        try:
            body = manifest.read(folder / str(candidate), candidate)
            check_expected(folder / str(candidate), body["metadata"], expect or {})
            check_items(folder / str(candidate), body["items"], abstract)
            manifest.check_files(folder / str(candidate), body["files"])
            return candidate, _load(folder / str(candidate), abstract), body["metadata"]
        except Damaged as error:
            if step is not None:
                raise CheckpointError(f"{error}; choose another step or train again") from error
            warnings.warn(f"skipped a damaged checkpoint: {error}", stacklevel=2)
    raise CheckpointError(f"{folder}: every checkpoint is damaged; start the run again")


def read_metadata(folder: Path, step: int | None = None) -> dict[str, Any]:
    """Return the metadata of `step`, or of the newest step with readable metadata.

    Raises:
        CheckpointError: there is no metadata.
    """
    folder = Path(folder).absolute()
    for candidate in _candidates(folder, step):
        try:
            return manifest.read(folder / str(candidate), candidate)["metadata"]
        except Damaged:
            if step is not None:
                raise
    raise CheckpointError(f"{folder}: every checkpoint is damaged; start the run again")


def latest_step(folder: Path) -> int | None:
    """Return the highest step number, damaged or not, or None without a step."""
    return max(_steps(Path(folder)), default=None)


def best_step(folder: Path) -> int | None:
    """Return the step with the highest score, the later of equal ones, or None without scores."""
    judged = [(score, step) for step, score in _scores(Path(folder)).items() if score is not None]
    return max(judged)[1] if judged else None


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if _is_step(entry))


def _is_step(entry: Path) -> bool:
    name = entry.name
    return entry.is_dir() and name.isascii() and name.isdigit() and name == str(int(name))


def _candidates(folder: Path, step: int | None) -> list[int]:
    """Steps to try, newest first."""
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such checkpoint folder; check the path")
    steps = _steps(folder)
    if not steps:
        raise CheckpointError(f"{folder} has no checkpoint; check the path or train first")
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder} has no step {step}; it has {', '.join(map(str, steps))}")
    return steps[::-1] if step is None else [step]


def _load(step_folder: Path, abstract: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Load with Orbax, and rebuild the trees of `abstract`, which are known to fit."""
    targets = {
        item: {path: target_of(leaf) for path, leaf in paths_of(tree)}
        for item, tree in abstract.items()
    }
    stored = {
        item: {path: target for path, target in leaves.items() if target.size}
        for item, leaves in targets.items()
    }
    wanted = {item: leaves for item, leaves in stored.items() if leaves}
    try:
        loaded = quietly(lambda: _read_items(step_folder, wanted))
    except Failed as error:
        raise Damaged(f"{step_folder}: Orbax cannot load it ({error})") from error
    restored = {}
    for item, leaves in targets.items():
        arrays = [
            loaded[item][path] if target.size else jnp.zeros(target.shape, target.dtype)
            for path, target in leaves.items()
        ]
        like, structure = jax.tree.flatten(abstract[item])
        placed = (getattr(leaf, "sharding", None) is not None for leaf in like)
        arrays = [a if p else unplaced(a) for a, p in zip(arrays, placed, strict=True)]
        restored[item] = jax.tree.unflatten(structure, arrays)
    return restored


def _write_step(folder: Path, body: dict[str, Any], stored: Mapping[str, Any]) -> None:
    """Write a step into a staging folder, read it back, and rename it into place."""
    final = folder / str(body["step"])
    staging = folder / f"{final.name}{STAGING}"
    if devices.leads():
        folder.mkdir(parents=True, exist_ok=True)
        _discard_staging(folder)
        staging.mkdir()
    staging = devices.path_of_first(staging)
    filled = {item: tree for item, tree in stored.items() if tree}
    with _plain(staging) as path:  # all processes must take part, in one folder
        ocp.save_checkpointables(path / "orbax", filled, custom_metadata=body["metadata"])
    _read_back(staging, filled)
    if not devices.leads():
        return
    manifest.write(staging, body)
    manifest.check_files(staging, manifest.read(staging, body["step"])["files"], content=False)
    if final.exists():
        final.rename(folder / f"{final.name}{STAGING}-replaced")
    staging.rename(final)
    _discard_staging(folder)


def _discard_staging(folder: Path) -> None:
    """Remove the staging folders of killed saves."""
    for entry in list(folder.iterdir()):
        if STAGING in entry.name:
            shutil.rmtree(entry)


def _read_back(step_folder: Path, written: Mapping[str, Any]) -> None:
    """Compare loaded and written arrays bit by bit, on the host."""
    loaded = _read_items(step_folder, written)
    for item, tree in written.items():
        for path, leaf in tree.items():
            if bytes_of(loaded[item][path]) != bytes_of(leaf):
                raise CheckpointError(f"item {item!r}, leaf {path!r} differs when read back")


def _read_items(step_folder: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    if not like:
        return {}
    with _plain(step_folder) as path:
        return ocp.load_checkpointables(path / "orbax", like)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """A path of `folder` without special characters.

    Orbax interprets brackets, stars and "gs:" in a path, and TensorStore changes backslashes. Linux
    has a plain path for every open folder. Elsewhere `folder` is used as it is, and reading back
    shows whether it works. All processes must use the same path, so its number starts above their
    open files.
    """
    if not os.path.isdir("/proc/self/fd"):
        yield folder
        return
    first = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        number = fcntl.fcntl(first, fcntl.F_DUPFD_CLOEXEC, _FREE)
    finally:
        os.close(first)
    try:
        yield Path(f"/proc/self/fd/{number}")
    finally:
        os.close(number)


def _prune(folder: Path, step: int, keep: int) -> None:
    """Keep the best and the newest `keep` steps that look intact, and none after `step`."""
    for later in (found for found in _steps(folder) if found > step):
        shutil.rmtree(folder / str(later))
    oldest, best = sorted(_scores(folder))[-keep:][0], best_step(folder)
    for older in (found for found in _steps(folder) if found < oldest and found != best):
        shutil.rmtree(folder / str(older))


def _scores(folder: Path) -> dict[int, float | None]:
    """The scores of all steps that look intact."""
    scores = {}
    for step in _steps(folder):
        try:
            body = manifest.read(folder / str(step), step)
            manifest.check_files(folder / str(step), body["files"], content=False)
        except CheckpointError:
            continue
        scores[step] = body.get("score")
    return scores
