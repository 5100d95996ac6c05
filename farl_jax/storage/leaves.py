"""Leaves of a checkpoint: their paths, shapes and bytes, and whether they fit what is asked for."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.schema import shown
from farl_jax.storage.manifest import CheckpointError

PyTree = Any


def digest(tree: PyTree) -> str:
    """SHA-256 of all leaves of a tree: their paths, types, shapes and numbers."""
    seen = hashlib.sha256()
    for path, leaf in sorted(host_leaves("tree", tree).items()):
        seen.update(f"{path} {spec_of(leaf)}\n".encode() + bytes_of(leaf))
    return seen.hexdigest()


def paths_of(tree: PyTree) -> list[tuple[str, Any]]:
    """Every leaf with its path as text, such as params/Dense_0/kernel."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def host_leaves(item: str, tree: PyTree) -> dict[str, Any]:
    """Leaves by path as NumPy arrays (typed keys stay), so that no device is written down."""
    leaves: dict[str, Any] = {}
    for path, leaf in paths_of(tree):
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


def spec_of(leaf: Any) -> str:
    """Dtype and shape as one word: float32[64,3]; key<fry>[]."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def as_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return `metadata` as it reads back from JSON.

    Raises:
        CheckpointError: it has no JSON form.
    """
    try:
        return json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"metadata is not JSON: {error}") from error


def check_expected(
    step_folder: Path, metadata: Mapping[str, Any], expect: Mapping[str, Any]
) -> None:
    """Raise CheckpointError where saved metadata lacks an expected entry or differs from it."""
    for name, wanted in as_json(expect).items():
        if name not in metadata:
            raise CheckpointError(f"{step_folder}: the checkpoint does not say its {name}")
        if metadata[name] != wanted:
            raise CheckpointError(
                f"{step_folder}: checkpoint is of {name} {shown(metadata[name])}, "
                f"this run is of {wanted!r}; point to another checkpoint or change the run"
            )


def check_items(
    step_folder: Path, saved: Mapping[str, Mapping[str, str]], abstract: Mapping[str, PyTree]
) -> None:
    """Raise CheckpointError where saved items do not have exactly the leaves of `abstract`."""
    for item, tree in abstract.items():
        if item not in saved:
            raise CheckpointError(
                f"{step_folder}: has no item {item!r}; it has {', '.join(sorted(saved)):.200}"
            )
        wanted = {path: spec_of(leaf) for path, leaf in paths_of(tree)}
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


def bytes_of(leaf: Any) -> bytes:
    """A leaf's numbers; those of a typed key are its words."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def unplaced(array: jax.Array) -> jax.Array:
    """The same array as if just made, not tied to its device: JAX compiles a program anew for
    arguments that are."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = unplaced(jax.random.key_data(array))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    return jnp.asarray(np.asarray(array))


def target_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """The array to load, placed on its own sharding or on the default device."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
