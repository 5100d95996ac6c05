"""Offline data: flat arrays of transitions with episode numbers, and device-side sampling.

Files are plain npz without pickles: reading one runs no code.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from farl_jax.schema import shown
from farl_jax.storage.files import replacing
from farl_jax.types import Normalizer, Transition

FORMAT = 2
KINDS = ("task", "failure", "recovery")
"""Kinds of demonstrations, one file each."""
FIELDS: dict[str, type] = {
    "obs": np.float32,
    "action": np.float32,
    "intended": np.float32,
    "reward": np.float32,
    "failure": np.bool_,
    "terminated": np.bool_,
    "truncated": np.bool_,
    "next_obs": np.float32,
    "episode": np.int32,
}
OPTIONAL: dict[str, type] = {"margin": np.float32, "next_margin": np.float32, "success": np.bool_}
"""Distance to failure before and after the step, where the environment has one; success, which

files of older versions and data of others may not say.
"""
WIDE = ("obs", "action", "intended", "next_obs")  # [M, features]; the others are [M]


class DatasetError(ValueError):
    """A dataset file is missing, damaged or of another kind. The message is one line."""


Dataset = dict[str, np.ndarray]
"""Transitions in time order, episode after episode: FIELDS, and some OPTIONAL -> [M, ...]."""


def from_rollout(rollout: Transition, keep: np.ndarray | None = None) -> Dataset:
    """Cut a rollout [T, N] into episodes, environment after environment.

    `keep` [T, N] bool selects steps, and a gap starts a new episode. `action` is the executed
    action, clipped to [-1, 1]. `intended` is the controller's own, without noise or gate.
    """
    chex.assert_equal_shape([rollout.reward, rollout.terminated, rollout.truncated])
    return cut(fields_of(rollout), keep)


def fields_of(rollout: Transition) -> dict[str, np.ndarray]:
    """FIELDS except `episode`, and the OPTIONAL that are there -> [T, N, ...]."""
    chex.assert_rank([rollout.reward, rollout.obs], [2, 3])
    steps = jax.tree.map(np.asarray, rollout)
    names = [k for k in FIELDS if k not in ("action", "intended", "episode")]
    names += [k for k in OPTIONAL if getattr(steps, k) is not None]
    return {name: getattr(steps, name) for name in names} | {
        "action": np.clip(steps.decision.action, -1.0, 1.0),
        "intended": np.clip(steps.decision.task_action, -1.0, 1.0),
    }


def cut(fields: dict[str, np.ndarray], keep: np.ndarray | None = None) -> Dataset:
    """Cut fields [T, N, ...] into episodes, environment after environment; `keep` as above."""
    ends = fields["terminated"] | fields["truncated"]
    keep = np.ones(ends.shape, bool) if keep is None else np.asarray(keep)
    chex.assert_rank(keep, 2)
    chex.assert_equal_shape([keep, ends])
    starts = np.ones_like(keep)
    starts[1:] = ends[:-1] | ~keep[:-1]
    mask = keep.T.reshape(-1)
    flat = {k: np.swapaxes(v, 0, 1).reshape(-1, *v.shape[2:])[mask] for k, v in fields.items()}
    flat["episode"] = np.cumsum(starts.T.reshape(-1)[mask]) - 1
    kinds = {name: kind for name, kind in (FIELDS | OPTIONAL).items() if name in flat}
    kinds |= {name: value.dtype for name, value in flat.items() if name not in kinds}
    return {name: np.ascontiguousarray(flat[name], kind) for name, kind in kinds.items()}


def concatenate(*parts: Dataset) -> Dataset:
    """Join datasets, and renumber their episodes. Optional fields stay if all parts have them."""
    offsets = np.cumsum([0] + [num_episodes(p) for p in parts[:-1]])
    names = [k for k in FIELDS | OPTIONAL if k != "episode" and all(k in p for p in parts)]
    joined = {k: np.concatenate([p[k] for p in parts]) for k in names}
    joined["episode"] = np.concatenate(
        [_renumber(p["episode"]) + o for p, o in zip(parts, offsets, strict=True)]
    ).astype(np.int32)
    return joined


def num_episodes(data: Dataset) -> int:
    """Number of distinct episodes."""
    return len(np.unique(data["episode"]))


def select_episodes(data: Dataset, episodes: np.ndarray) -> Dataset:
    """The transitions of these episodes, in time order."""
    chex.assert_rank([data["episode"], episodes], 1)
    mask = np.isin(data["episode"], episodes)
    picked = {k: v[mask] for k, v in data.items()}
    return picked | {"episode": _renumber(picked["episode"])}


def split_by_episode(data: Dataset, share: float, seed: int) -> tuple[Dataset, Dataset]:
    """(training, held-out) with at least one whole episode held out."""
    episodes = np.unique(data["episode"])
    if len(episodes) < 2:
        raise DatasetError(
            f"cannot hold out one of {len(episodes)} episode(s); collect at least 2 demonstrations"
        )
    order = np.random.default_rng(seed).permutation(episodes)
    held = min(len(episodes) - 1, max(1, round(share * len(episodes))))
    return select_episodes(data, order[held:]), select_episodes(data, order[:held])


def _renumber(episode: np.ndarray) -> np.ndarray:
    return np.unique(episode, return_inverse=True)[1].astype(np.int32)


def save_dataset(path: Path, data: Dataset, metadata: dict[str, Any]) -> None:
    """Write atomically. `metadata` is JSON with task, kind and provenance."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = json.dumps(metadata | {"format": FORMAT, "fields": list(data)})
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, metadata=np.array(header), **data)


def read_metadata(path: Path) -> dict[str, Any]:
    """Return what a dataset says of itself.

    Raises:
        DatasetError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            about = json.loads(str(archive["metadata"]))
        if not isinstance(about, dict):
            raise ValueError("its metadata is no group of fields")
        return about
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"dataset {path} is damaged ({reason}): delete it and run `farl demos` again"
        ) from error


def load_dataset(
    path: Path,
    *,
    task: str | None = None,
    kind: str | None = None,
    sizes: tuple[int, int] | None = None,
) -> tuple[Dataset, dict[str, Any]]:
    """Read a dataset and its metadata, checking format, task, kind, fields, shapes and numbers.

    `sizes` are the environment's (observation size, action size).

    Raises:
        DatasetError: one line.
    """
    if not path.is_file():
        raise DatasetError(f"no dataset at {path}; make it with `farl demos`")
    try:
        content = read_arrays(path, {"metadata", *FIELDS, *OPTIONAL})
        metadata = json.loads(str(content.pop("metadata")))
        fields = metadata.pop("fields", list(content)) if isinstance(metadata, dict) else ()
        if isinstance(metadata, dict) and set(fields) != set(content):
            raise ValueError("a field is missing")
    except Exception as error:  # a foreign file may raise any
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(
            f"dataset {path} is damaged ({reason}); delete it and run `farl demos` again"
        ) from error
    check_metadata(path, metadata, task)
    check_fields(path, content)
    if kind is not None and metadata.get("kind", kind) != kind:
        raise DatasetError(
            f"dataset {path} must be of kind {kind!r}; got {shown(metadata['kind'])}; "
            "restore this run's own, or run `farl demos --overwrite`"
        )
    found = content["obs"].shape[1], content["action"].shape[1]
    if sizes is not None and found != sizes:
        raise DatasetError(
            f"dataset {path} must have {sizes[0]} observation and {sizes[1]} action features; "
            f"got {found[0]} and {found[1]}; "
            "restore this run's own, or run `farl demos --overwrite`"
        )
    return content, metadata


def read_arrays(path: Path, known: set[str]) -> dict[str, np.ndarray]:
    """The arrays of a file, all of `known` names.

    Compressed ones are refused, because they may have any size.
    """
    with np.load(path, allow_pickle=False) as archive:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.zip.infolist()):
            raise ValueError("it is compressed")
        if unknown := sorted(set(archive.files) - known):
            raise ValueError(f"unknown field {shown(unknown[0])}")
        return {name: archive[name] for name in archive.files}


def check_metadata(path: Path, metadata: dict[str, Any], task: str | None) -> None:
    """Refuse a dataset of another format or task."""
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        metadata = metadata if isinstance(metadata, dict) else {}
        raise DatasetError(
            f"dataset {path} must have format {FORMAT}; got {shown(metadata.get('format'))}; "
            "make it again with `farl demos`"
        )
    if task is not None and metadata.get("task") != task:
        raise DatasetError(
            f"dataset {path} must be of task {task!r}; got {shown(metadata.get('task'))}"
        )


def check_fields(path: Path, data: Dataset) -> None:
    """Refuse data in which a field is missing, of another shape or type, or not finite."""
    length = np.size(data.get("episode", ()))
    kinds = FIELDS | {k: kind for k, kind in OPTIONAL.items() if k in data}
    if ("margin" in data) != ("next_margin" in data):
        raise DatasetError(f"dataset {path}: margin and next_margin go together, one is missing")
    for name, kind in kinds.items():
        field = data.get(name)
        if field is None or field.dtype != kind or field.ndim < 1 or len(field) != length:
            raise DatasetError(
                f"dataset {path}: field {name!r} is missing or not {length} x {kind.__name__}"
            )
        if field.ndim != (2 if name in WIDE else 1) or not np.isfinite(field).all():
            raise DatasetError(f"dataset {path}: field {name!r} has a wrong shape or is not finite")
    for first, second in (("obs", "next_obs"), ("action", "intended")):
        if data[first].shape != data[second].shape:
            raise DatasetError(f"dataset {path}: {first} and {second} differ in shape")
    if any(np.abs(data[name]).max(initial=0.0) > 1.0 for name in ("action", "intended")):
        raise DatasetError(f"dataset {path}: an action is outside [-1, 1]")
    if length == 0:
        raise DatasetError(f"dataset {path} is empty; make it again with `farl demos`")


@struct.dataclass
class DeviceData:
    """A dataset on the device, padded to a power of two to share compiled programs."""

    fields: dict[str, jax.Array]  # name -> [P, ...], P >= size
    size: jax.Array  # [] i32 real rows

    def sample(self, key: jax.Array, batch: int) -> dict[str, jax.Array]:
        """Uniform rows with replacement: name -> [batch, ...]."""
        rows = jax.random.randint(key, (batch,), 0, self.size)
        return {k: v[rows] for k, v in self.fields.items()}


def to_device(data: Dataset, names: tuple[str, ...], least: int = 4096) -> DeviceData:
    """Put the named fields on the device, padded to at least `least` rows."""
    size = len(data["episode"])
    return DeviceData(
        fields={k: jnp.asarray(pad_to_power_of_two(data[k], least)) for k in names},
        size=jnp.asarray(size, jnp.int32),
    )


def normalize_rows(data: Dataset, normalizer: Normalizer) -> Dataset:
    """`data` with normalised obs and next_obs [M, D]."""
    return data | {k: np.asarray(normalizer(data[k])) for k in ("obs", "next_obs")}


def to_normalized(
    data: Dataset, normalizer: Normalizer, names: tuple[str, ...], least: int = 4096
) -> DeviceData:
    """`to_device` with normalised observations."""
    return to_device(normalize_rows(data, normalizer), names, least)


def pad_to_power_of_two(array: np.ndarray, least: int = 1024) -> np.ndarray:
    """Append zero rows up to the next power of two, at least `least`."""
    target = 1 << (max(least, len(array)) - 1).bit_length()
    return np.concatenate([array, np.zeros((target - len(array), *array.shape[1:]), array.dtype)])
