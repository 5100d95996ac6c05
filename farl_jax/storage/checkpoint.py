"""Whole-state checkpoints: Orbax V1 behind one file, strict on the way back, honest about damage.

A step is one folder, `<folder>/<step>`, that appears by a rename when it is complete and has been
read back. It holds one Orbax checkpointable per item, each a flat dictionary from leaf path to
array, and the manifest (`farl_jax.storage.manifest`). Orbax detects damage, too, but reports all of
it alike, and it loads wrong shapes silently: so the folder is checked against the manifest first,
and Orbax only sees what is known to fit.
"""

import errno
import fcntl
import hashlib
import json
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
import numpy as np
from orbax.checkpoint import v1 as ocp

from farl_jax import devices
from farl_jax.schema import shown
from farl_jax.storage import manifest
from farl_jax.storage.manifest import CheckpointError, Damaged
from farl_jax.storage.quiet import Failed, quietly

PyTree = Any

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
    leaves = {name: _host_leaves(name, tree) for name, tree in items.items()}
    folder = Path(folder).absolute()
    body = {"format": manifest.FORMAT, "step": step, "metadata": _as_json(metadata), "score": score}
    stored = {  # Orbax stores no empty arrays and no empty items
        item: {path: leaf for path, leaf in tree.items() if leaf.size}
        for item, tree in leaves.items()
    }
    body["items"] = {
        item: {path: _spec(leaf) for path, leaf in tree.items()} for item, tree in leaves.items()
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
            _check_expected(folder / str(candidate), body["metadata"], expect or {})
            _check_items(folder / str(candidate), body["items"], abstract)
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


def digest(tree: PyTree) -> str:
    """SHA-256 of all leaves of a tree: their paths, types, shapes and numbers."""
    seen = hashlib.sha256()
    for path, leaf in sorted(_host_leaves("tree", tree).items()):
        seen.update(f"{path} {_spec(leaf)}\n".encode() + _bytes(leaf))
    return seen.hexdigest()


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


def _paths(tree: PyTree) -> list[tuple[str, Any]]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def _host_leaves(item: str, tree: PyTree) -> dict[str, Any]:
    """Leaves by path as NumPy arrays (typed keys stay), so that no device is written down."""
    leaves: dict[str, Any] = {}
    for path, leaf in _paths(tree):
        where = f"item {item!r}, leaf {path!r}"
        if path in leaves:
            raise CheckpointError(f"{where}: two leaves have this path; rename one")
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            if not leaf.size:
                raise CheckpointError(f"{where}: an empty array of PRNG keys cannot be stored")
            leaves[path] = leaf
            continue
        if isinstance(leaf, bool | int | float):
            leaf = jnp.asarray(leaf)
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic) or leaf.dtype.hasobject:
            raise CheckpointError(f"{where}: {type(leaf).__name__} is not an array or number")
        array = np.asarray(leaf)
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise CheckpointError(f"{where}: {array.dtype} would not survive JAX; use 32 bits")
        leaves[path] = array
    return leaves


def _spec(leaf: Any) -> str:
    """Dtype and shape as one word: float32[64,3]; key<fry>[]."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"metadata is not JSON: {error}") from error


def _check_expected(
    step_folder: Path, metadata: Mapping[str, Any], expect: Mapping[str, Any]
) -> None:
    for name, wanted in _as_json(expect).items():
        if name not in metadata:
            raise CheckpointError(f"{step_folder}: the checkpoint does not say its {name}")
        if metadata[name] != wanted:
            raise CheckpointError(
                f"{step_folder}: checkpoint is of {name} {shown(metadata[name])}, "
                f"this run is of {wanted!r}; point to another checkpoint or change the run"
            )


def _check_items(
    step_folder: Path, saved: Mapping[str, Mapping[str, str]], abstract: Mapping[str, PyTree]
) -> None:
    for item, tree in abstract.items():
        if item not in saved:
            raise CheckpointError(
                f"{step_folder}: has no item {item!r}; it has {', '.join(sorted(saved)):.200}"
            )
        wanted = {path: _spec(leaf) for path, leaf in _paths(tree)}
        hint = "was it trained with another config or version?"
        for path, spec in wanted.items():
            if path not in saved[item]:
                raise CheckpointError(f"{step_folder}: item {item!r} lacks leaf {path!r}; {hint}")
            if saved[item][path] != spec:
                raise CheckpointError(
                    f"{step_folder}: item {item!r}, leaf {path!r} is {saved[item][path]:.80}, "
                    f"this run needs {spec}; {hint}"
                )
        if surplus := sorted(set(saved[item]) - set(wanted)):
            raise CheckpointError(
                f"{step_folder}: item {item!r} has leaf {shown(surplus[0])}, unknown to this run; "
                f"{hint}"
            )


def _load(step_folder: Path, abstract: Mapping[str, PyTree]) -> dict[str, PyTree]:
    """Read through Orbax and rebuild the trees of `abstract`, whose fit has been checked."""
    targets = {
        item: {path: _target(leaf) for path, leaf in _paths(tree)}
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
        arrays = [a if p else _unplaced(a) for a, p in zip(arrays, placed, strict=True)]
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
            if _bytes(loaded[item][path]) != _bytes(leaf):
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


def _bytes(leaf: Any) -> bytes:
    """A leaf's numbers; those of a typed key are its words."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def _unplaced(array: jax.Array) -> jax.Array:
    """The same array as if just made, not tied to its device: JAX compiles a program anew for
    arguments that are."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = _unplaced(jax.random.key_data(array))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    return jnp.asarray(np.asarray(array))


def _target(leaf: Any) -> jax.ShapeDtypeStruct:
    """The array to load, placed on its own sharding or on the default device."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


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
