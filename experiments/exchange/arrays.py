"""Plain npz and HDF5 files of logged steps: flat arrays [M, ...], episode after episode.

Names (of alternatives the first counts): observations (or observations/NAME, sorted and joined),
actions, rewards, next_observations, terminals | terminations | terminated, timeouts | truncations |
truncated, episode. Any other array of M rows is a signal of the step, such as failure or cost,
success, margin and next_margin. A group `infos` is flattened.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from experiments.errors import UserError
from experiments.exchange.episodes import MARGIN, Episode
from farl_jax.data.dataset import DatasetError

NAMES = {
    "actions": ("actions", "action"),
    "rewards": ("rewards", "reward"),
    "terminated": ("terminals", "terminations", "terminated"),
    "truncated": ("timeouts", "truncations", "truncated"),
    "episode": ("episode", "episodes", "episode_id"),
}
OBSERVATIONS = ("observations", "obs")
NEXT_OBSERVATIONS = ("next_observations", "next_obs")


def read(path: Path) -> list[Episode]:
    """Return the episodes of a file.

    Raises:
        UserError: HDF5 needs h5py, which is not installed.
        DatasetError: the file is damaged, or an array is missing or has a wrong length.
    """
    source = str(path)
    try:
        arrays = _npz(path) if path.suffix == ".npz" else _hdf5(path)
    except UserError:
        raise
    except Exception as error:  # damaged bytes make the libraries raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DatasetError(f"{source} cannot be read: {reason}") from error
    arrays = {name.removeprefix("infos/"): value for name, value in arrays.items()}
    found = {k: next((arrays[n] for n in names if n in arrays), None) for k, names in NAMES.items()}
    obs, following = (_joined(arrays, names) for names in (OBSERVATIONS, NEXT_OBSERVATIONS))
    for name, value in (("observations", obs), *list(found.items())[:2]):
        if value is None:
            has = ", ".join(sorted(arrays)) or "nothing"
            raise DatasetError(f"{source}: no array {name!r}, only {has}")
    for name, value in (("observations", obs), ("next_observations", following)):
        if value is not None and value.ndim != 2:
            raise DatasetError(
                f"{source}: {name} must be flat vectors, (M, D); got shape {value.shape}"
            )
    return _episodes(source, arrays, obs, following, found)


def _episodes(
    source: str,
    arrays: Mapping[str, np.ndarray],
    obs: np.ndarray,
    following: np.ndarray | None,
    found: Mapping[str, np.ndarray | None],
) -> list[Episode]:
    length = len(obs)
    used = {n for names in (*NAMES.values(), OBSERVATIONS, NEXT_OBSERVATIONS) for n in names}
    signals = {
        name: value
        for name, value in arrays.items()
        if name.split("/")[0] not in used and value.ndim and len(value) == length
    }
    rows = (following, *found.values())
    if any(value is not None and len(value) != length for value in rows):
        raise DatasetError(f"{source}: arrays differ in length: all must have {length} rows")
    zero = np.zeros(length, bool)
    flags = {
        k: zero if found[k] is None else found[k].reshape(length).astype(bool)
        for k in ("terminated", "truncated")
    }
    last = flags["terminated"] | flags["truncated"]
    if found["episode"] is not None:
        last = np.append(np.diff(found["episode"].reshape(length)) != 0, True)
    elif not last.any():
        raise DatasetError(
            f"{source}: nothing says where episodes end: add terminals and timeouts, or episode"
        )
    cuts = np.unique(np.append(np.flatnonzero(last) + 1, length))
    parts = [slice(a, b) for a, b in zip([0, *cuts[:-1]], cuts, strict=True)]
    return [_one(own, obs, following, found, flags, signals) for own in parts]


def _one(part, obs, following, found, flags, signals) -> Episode:
    """Return the episode in the rows `part`."""
    seen, margin, own = obs[part], None, {k: v[part] for k, v in signals.items()}
    if following is not None:
        seen = np.concatenate([seen, following[part][-1:]])
    after = own.pop(f"next_{MARGIN}", None)
    before = own.pop(MARGIN, None)
    if before is not None and after is not None:
        margin = np.concatenate([before, after[-1:]]).reshape(-1)
    rewards = found["rewards"][part].reshape(-1)
    ends = [flags[k][part] for k in ("terminated", "truncated")]
    return Episode(seen, found["actions"][part], rewards, *ends, own, margin)


def _joined(arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    """Return an array by one of its names, or its parts NAME/KEY joined in sorted order."""
    for name in names:
        if name in arrays:
            return arrays[name]
        parts = [arrays[key] for key in sorted(arrays) if key.startswith(f"{name}/")]
        if parts:
            return np.concatenate([np.asarray(p, np.float32) for p in parts], axis=-1)
    return None


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs h5py: pip install 'farl-jax[h5py]'") from error
    arrays: dict[str, np.ndarray] = {}

    def keep(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "biuf":
            arrays[name] = node[()]

    with h5py.File(path, "r") as file:
        file.visititems(keep)
    return arrays
