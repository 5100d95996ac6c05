"""Leaves of a checkpoint: their paths, shapes and bytes, and checks that they fit."""

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
    """SHA-256 of a tree: paths, types, shapes and numbers of all leaves."""
    seen = hashlib.sha256()
    for path, leaf in sorted(host_leaves("tree", tree).items()):
        seen.update(f"{path} {spec_of(leaf)}\n".encode() + bytes_of(leaf))
    return seen.hexdigest()


def paths_of(tree: PyTree) -> list[tuple[str, Any]]:
    """Every leaf with its path as text, such as params/Dense_0/kernel."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in flat]


def host_leaves(item: str, tree: PyTree) -> dict[str, Any]:
    """Leaves by path as NumPy arrays, so that no device is stored. Typed keys stay."""
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
            raise CheckpointError(f"{where}: JAX does not keep {array.dtype}; use 32 bits")
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
    """Raise CheckpointError if saved metadata lacks an expected entry or differs."""
    for name, wanted in as_json(expect).items():
        if name not in metadata:
            raise CheckpointError(f"{step_folder}: the checkpoint has no {name} in its metadata")
        if metadata[name] != wanted:
            raise CheckpointError(
                f"{step_folder}: {name} must be {wanted!r} as in this run; got "
                f"{shown(metadata[name])}; choose another checkpoint or change the run"
            )


def check_items(
    step_folder: Path, saved: Mapping[str, Mapping[str, str]], abstract: Mapping[str, PyTree]
) -> None:
    """Raise CheckpointError if saved items do not have exactly the leaves of `abstract`."""
    for item, tree in abstract.items():
        if item not in saved:
            raise CheckpointError(
                f"{step_folder} has no item {item!r}; it has {', '.join(sorted(saved)):.200}"
            )
        wanted = {path: spec_of(leaf) for path, leaf in paths_of(tree)}
        hint = "it was trained with another config or version"
        for path, spec in wanted.items():
            if path not in saved[item]:
                raise CheckpointError(f"{step_folder}: item {item!r} lacks leaf {path!r}; {hint}")
            if saved[item][path] != spec:
                raise CheckpointError(
                    f"{step_folder}: item {item!r}, leaf {path!r} must be {spec}; "
                    f"got {saved[item][path]:.80}; {hint}"
                )
        if surplus := sorted(set(saved[item]) - set(wanted)):
            raise CheckpointError(
                f"{step_folder}: item {item!r} has leaf {shown(surplus[0])}, unknown to this run; "
                f"{hint}"
            )


def bytes_of(leaf: Any) -> bytes:
    """Bytes of a leaf's numbers, or of a typed key's words."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return np.asarray(leaf).tobytes()


def unplaced(array: jax.Array) -> jax.Array:
    """The same array without a fixed device. JAX would compile programs again for a fixed one."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        data = unplaced(jax.random.key_data(array))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(array))
    return jnp.asarray(np.asarray(array))


def target_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """The array to load, with its own sharding or on the default device."""
    leaf = leaf if hasattr(leaf, "dtype") else jnp.asarray(leaf)
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
