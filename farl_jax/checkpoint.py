"""Whole-state checkpoints: Orbax V1 behind one file, strict on the way back, honest about damage.

A step is one folder, `<folder>/<step>`, that appears by a rename when it is complete. It holds one
Orbax checkpointable per item, each a flat dictionary from leaf path to array, and `metadata.json`:
the caller's metadata, every leaf's shape and dtype, and size and CRC-32 of every file. Orbax
detects damage, too, but reports all of it alike, and it loads wrong shapes silently: so the folder
is checked against `metadata.json` first, and Orbax only sees what is known to fit.
"""

import json
import shutil
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from farl_jax import devices

PyTree = Any

FORMAT = 1
MANIFEST = "metadata.json"
STAGING = ".incoming"


class CheckpointError(ValueError):
    """A checkpoint could not be saved or loaded. The message is one line: what, why, way out."""


class _Damaged(CheckpointError):
    """What is on disk is not what was saved: an older step may still be good."""


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
    final, staging = folder / str(step), folder / f"{step}{STAGING}"
    body = {"format": FORMAT, "step": step, "metadata": _as_json(metadata), "score": score}
    stored = {  # Orbax stores no empty arrays and no empty items
        item: {path: leaf for path, leaf in tree.items() if leaf.size}
        for item, tree in leaves.items()
    }
    try:
        if jax.process_index() > 0:
            _write_items(staging / "orbax", stored, body["metadata"])
            return devices.path_of_first(final)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"*{STAGING}*"):  # of a save that was killed
            shutil.rmtree(leftover)
        staging.mkdir()
        _write_items(staging / "orbax", stored, body["metadata"])
        body["items"] = {
            item: {path: _spec(leaf) for path, leaf in tree.items()}
            for item, tree in leaves.items()
        }
        _write_manifest(staging, body)
        if final.exists():
            final.rename(folder / f"{step}{STAGING}-replaced")
        staging.rename(final)
        for leftover in folder.glob(f"*{STAGING}*"):
            shutil.rmtree(leftover)
        _prune(folder, step, keep)
    except Exception as error:
        shutil.rmtree(staging, ignore_errors=True)
        way = "older steps are intact, --resume goes on from them"
        reason = f"cannot save step {step} in {folder}: {_root_cause(error)}; {way}"
        raise CheckpointError(reason) from error
    return devices.path_of_first(final)


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
            manifest = _read_manifest(folder / str(candidate))
            _check_expected(folder / str(candidate), manifest["metadata"], expect or {})
            _check_items(folder / str(candidate), manifest["items"], abstract)
            _check_files(folder / str(candidate), manifest["files"])
            return candidate, _load(folder / str(candidate), abstract), manifest["metadata"]
        except _Damaged as error:
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
            return _read_manifest(folder / str(candidate))["metadata"]
        except _Damaged:
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
    return entry.is_dir() and entry.name.isascii() and entry.name.isdigit()


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


def _files(step_folder: Path) -> dict[str, Path]:
    found = (path for path in sorted(step_folder.rglob("*")) if path.is_file())
    names = {path.relative_to(step_folder).as_posix(): path for path in found}
    return {name: path for name, path in names.items() if name != MANIFEST}


def _crc(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _body_crc(body: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(body, sort_keys=True).encode())


def _write_manifest(step_folder: Path, body: dict[str, Any]) -> None:
    files = {name: [path.stat().st_size, _crc(path)] for name, path in _files(step_folder).items()}
    body = {**body, "files": files}
    text = json.dumps({**body, "crc32": _body_crc(body)}, indent=1)
    (step_folder / MANIFEST).write_text(text, encoding="utf-8")


def _read_manifest(step_folder: Path) -> dict[str, Any]:
    path = step_folder / MANIFEST
    try:
        body = json.loads(path.read_bytes().decode("utf-8"))
        crc = body.pop("crc32")
    except FileNotFoundError as error:
        raise _Damaged(f"{path}: missing") from error
    except OSError as error:
        raise _Damaged(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise _Damaged(f"{path}: damaged (not the JSON that was saved)") from error
    if crc != _body_crc(body):
        raise _Damaged(f"{path}: damaged (its checksum differs)")
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: checkpoint format {body['format']}, this version reads {FORMAT}; "
            "use the farl-jax version that wrote it"
        )
    return body


def _check_files(step_folder: Path, saved: Mapping[str, list[int]], content: bool = True) -> None:
    """Compare the files on disk with the manifest's; without `content` only their sizes."""
    present = _files(step_folder)
    for name, (size, crc) in saved.items():
        if name not in present:
            raise _Damaged(f"{step_folder / name}: missing")
        try:
            found = present[name].stat().st_size
            intact = not content or _crc(present[name]) == crc
        except OSError as error:
            raise _Damaged(f"{present[name]}: cannot be read ({error.strerror})") from error
        if found != size:
            raise _Damaged(f"{present[name]}: damaged ({found} of {size} bytes)")
        if not intact:
            raise _Damaged(f"{present[name]}: damaged (its checksum differs)")


def _check_expected(
    step_folder: Path, metadata: Mapping[str, Any], expect: Mapping[str, Any]
) -> None:
    for name, wanted in _as_json(expect).items():
        if name not in metadata:
            raise CheckpointError(f"{step_folder}: the checkpoint does not say its {name}")
        if metadata[name] != wanted:
            raise CheckpointError(
                f"{step_folder}: checkpoint is of {name} {metadata[name]!r}, "
                f"this run is of {wanted!r}; point to another checkpoint or change the run"
            )


def _check_items(
    step_folder: Path, saved: Mapping[str, Mapping[str, str]], abstract: Mapping[str, PyTree]
) -> None:
    for item, tree in abstract.items():
        if item not in saved:
            raise CheckpointError(
                f"{step_folder}: has no item {item!r}; it has {', '.join(sorted(saved))}"
            )
        wanted = {path: _spec(leaf) for path, leaf in _paths(tree)}
        hint = "was it trained with another config or version?"
        for path, spec in wanted.items():
            if path not in saved[item]:
                raise CheckpointError(f"{step_folder}: item {item!r} lacks leaf {path!r}; {hint}")
            if saved[item][path] != spec:
                raise CheckpointError(
                    f"{step_folder}: item {item!r}, leaf {path!r} is {saved[item][path]}, "
                    f"this run needs {spec}; {hint}"
                )
        if surplus := sorted(set(saved[item]) - set(wanted)):
            raise CheckpointError(
                f"{step_folder}: item {item!r} has leaf {surplus[0]!r}, unknown to this run; {hint}"
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
        loaded = ocp.load_checkpointables(step_folder / "orbax", wanted) if wanted else {}
    except Exception as error:
        raise _Damaged(f"{step_folder}: Orbax cannot load it ({_root_cause(error)})") from error
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


def _write_items(folder: Path, items: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Through Orbax, for which all of several processes must take part, in one folder."""
    filled = {item: tree for item, tree in items.items() if tree}
    ocp.save_checkpointables(devices.path_of_first(folder), filled, custom_metadata=metadata)


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
            manifest = _read_manifest(folder / str(step))
            _check_files(folder / str(step), manifest["files"], content=False)
        except CheckpointError:
            continue
        scores[step] = manifest.get("score")
    return scores


def _root_cause(error: BaseException) -> str:
    """The innermost reason of a chain of exceptions, as one line."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    reason = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {' '.join(reason.split())[:300]}"
