"""Whole-state checkpoints: Orbax V1 behind one file, strict on the way back, honest about damage.

A step is one folder, `<folder>/<step>`, that appears by a rename when it is complete and has been
read back. It holds one Orbax checkpointable per item, each a flat dictionary from leaf path to
array, and the manifest (`farl_jax.storage.manifest`). Orbax detects damage, too, but reports all of
it alike, and it loads wrong shapes silently: so the folder is checked against the manifest first,
and Orbax only sees what is known to fit.
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
    """Write all of `items` as step `step` and return its folder; complete when this returns.

    Leaves are arrays, numbers or typed PRNG keys; None and empty nodes are free. `metadata` is
    JSON. A step of the same number is replaced. Afterwards the newest `keep` intact steps and the
    one of the highest `score` remain; later steps belong to a continuation that was abandoned, and
    go as well. Of several processes all call this, each with whole leaves, and the first writes.

    Raises:
        CheckpointError: a leaf or the metadata cannot be stored, or the disk refuses.
    """
    if step < 0 or keep < 1:
        raise CheckpointError(f"step must be >= 0 and keep >= 1, got {step} and {keep}")
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
        way = f"{room}older steps are intact, --resume goes on from them"
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

    `abstract` holds trees from `jax.eval_shape` (or examples): their structure, shapes and dtypes
    must equal the saved ones exactly, and the result has their types. Leaves go where the
    abstract leaf's sharding says, else to the default device, wherever they were saved.
    With `step=None` the newest intact step is taken, with a warning for each damaged one that
    was passed over. Entries of `expect` must equal those of the metadata. Changes nothing on disk.

    Raises:
        CheckpointError: nothing intact, or not the checkpoint that was asked for.
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
    raise CheckpointError(f"{folder}: every checkpoint is damaged; start the run afresh")


def read_metadata(folder: Path, step: int | None = None) -> dict[str, Any]:
    """Return the metadata saved with `step`, or with the newest step that has readable metadata.

    Raises:
        CheckpointError: there is none.
    """
    folder = Path(folder).absolute()
    for candidate in _candidates(folder, step):
        try:
            return manifest.read(folder / str(candidate), candidate)["metadata"]
        except Damaged:
            if step is not None:
                raise
    raise CheckpointError(f"{folder}: every checkpoint is damaged; start the run afresh")


def latest_step(folder: Path) -> int | None:
    """Return the highest step number present, damaged or not; None where there is none."""
    return max(_steps(Path(folder)), default=None)


def best_step(folder: Path) -> int | None:
    """Return the step of the highest score, the later of equal ones; None where none has any."""
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
        raise CheckpointError(f"{folder}: holds no checkpoint; check the path or train first")
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder}: has no step {step}; it has {', '.join(map(str, steps))}")
    return steps[::-1] if step is None else [step]


def _load(step_folder: Path, abstract: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Read through Orbax and rebuild the trees of `abstract`, whose fit has been checked."""
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
    """Write a step beside its place, read it back, and put it there."""
    final = folder / str(body["step"])
    staging = folder / f"{final.name}{STAGING}"
    if devices.leads():
        folder.mkdir(parents=True, exist_ok=True)
        _discard_staging(folder)
        staging.mkdir()
    staging = devices.path_of_first(staging)
    filled = {item: tree for item, tree in stored.items() if tree}
    with _plain(staging) as path:  # of several processes all must take part, in one folder
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
    """Remove what saves that were killed have left."""
    for entry in list(folder.iterdir()):
        if STAGING in entry.name:
            shutil.rmtree(entry)


def _read_back(step_folder: Path, written: Mapping[str, Any]) -> None:
    """Compare what Orbax loads with what it was given, to the bit; arrays stay on the host."""
    loaded = _read_items(step_folder, written)
    for item, tree in written.items():
        for path, leaf in tree.items():
            if bytes_of(loaded[item][path]) != bytes_of(leaf):
                raise CheckpointError(f"item {item!r}, leaf {path!r} reads back otherwise")


def _read_items(step_folder: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    if not like:
        return {}
    with _plain(step_folder) as path:
        return ocp.load_checkpointables(path / "orbax", like)


@contextmanager
def _plain(folder: Path) -> Iterator[Path]:
    """A path of `folder` in which every letter means itself.

    Orbax takes brackets, stars and "gs:" in the path that it is given for more than a name, and
    TensorStore turns a backslash round. Linux has a plain path for every open folder. Elsewhere
    `folder` stands as it is, and reading back shows whether that was good. Of several processes all
    must name the same path, so its number begins where none of them has open files.
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
    """Leave the best and the newest `keep` steps that look intact, nothing later than `step`."""
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
