"""Episodes of any source as our dataset: flat, checked, actions scaled to [-1, 1]."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from farl_jax.data.dataset import Dataset, DatasetError, check_fields

FAILURES = ("failure", "failures", "cost", "costs")
SUCCESSES = ("success", "successes", "is_success")
INTENDED, MARGIN = "intended", "margin"
TOLERANCE = 1e-3
"""Actions up to this far beyond [-1, 1] are clipped."""


class Episode(NamedTuple):
    """T logged steps; actions in the units of `low` and `high`."""

    obs: np.ndarray  # [T + 1, D], or [T, D] without the last next observation
    action: np.ndarray  # [T, A]
    reward: np.ndarray  # [T]
    terminated: np.ndarray  # [T] bool
    truncated: np.ndarray  # [T] bool
    signals: Mapping[str, np.ndarray]  # name -> [T, ...] of the step's outcome
    margin: np.ndarray | None  # [T + 1] m to failure of `obs`


class Meaning(NamedTuple):
    """How the run's environment interprets the numbers."""

    observation_size: int
    low: np.ndarray  # [A] bounds of actions
    high: np.ndarray
    failure_key: str | None = None
    success_key: str | None = None  # None takes a usual one; without any, nothing succeeds
    failure: Callable[[np.ndarray, dict], Any] | None = None  # (obs after the step, signals)
    margin: Callable[[np.ndarray], Any] | None = None  # obs -> m


def to_dataset(source: str, episodes: Iterable[Episode], meaning: Meaning) -> Dataset:
    """Return the steps of all episodes, in their order.

    Raises:
        DatasetError: data is missing, not finite or of a wrong size; the message names the source.
    """
    parts = [_steps(source, i, own, meaning) for i, own in enumerate(episodes)]
    parts = [own for own in parts if len(own["reward"])]
    if len(parts) < 2:
        raise DatasetError(f"{source} holds {len(parts)} episodes: at least 2 are needed")
    if not all(MARGIN in own for own in parts):
        parts = [{k: v for k, v in own.items() if MARGIN not in k} for own in parts]
    data = {k: np.concatenate([own[k] for own in parts]) for k in parts[0]}
    lengths = [len(own["reward"]) for own in parts]
    data["episode"] = np.repeat(np.arange(len(parts)), lengths).astype(np.int32)
    check_fields(Path(source), data)
    return data


def check_kind(source: str, kind: str, data: Dataset) -> None:
    """Refuse failure demonstrations without a failure.

    Raises:
        DatasetError: no step fails.
    """
    if kind == "failure" and not data["failure"].any():
        raise DatasetError(
            f"{source} holds no failing step, which the world model needs: record some, in "
            "simulation or with a soft object, or name the key of failure with --env.failure-key"
        )


def _steps(source: str, number: int, own: Episode, meaning: Meaning) -> Dataset:
    """Return one episode's steps: all FIELDS except `episode` -> [T, ...]."""
    where = f"{source}, episode {number}"
    length = len(own.action)
    obs, action = np.asarray(own.obs, np.float32), np.asarray(own.action)
    if obs.ndim != 2 or action.ndim != 2 or len(obs) not in (length, length + 1):
        raise DatasetError(
            f"{where}: observations and actions must be flat vectors, (T + 1, D) and (T, A); got "
            f"{obs.shape} and {action.shape}"
        )
    sizes = obs.shape[1], action.shape[1]
    wanted = meaning.observation_size, len(meaning.low)
    if sizes != wanted:
        raise DatasetError(
            f"{where}: {sizes[0]} features of an observation and {sizes[1]} of an action; this "
            f"run's environment has {wanted[0]} and {wanted[1]}"
        )
    count = length if len(obs) > length else max(0, length - 1)
    signals = {name: np.asarray(value)[:count] for name, value in own.signals.items()}
    scale = lambda values: _scaled(where, np.asarray(values)[:count], meaning)
    data = {
        "obs": obs[:count],
        "action": scale(action),
        "intended": scale(own.signals[INTENDED] if INTENDED in signals else action),
        "reward": np.asarray(own.reward, np.float32)[:count],
        "failure": _failure(where, signals, obs[1 : count + 1], meaning),
        "terminated": np.asarray(own.terminated, bool)[:count],
        "truncated": np.asarray(own.truncated, bool)[:count],
        "next_obs": obs[1 : count + 1],
    }
    success = _named(signals, meaning.success_key, SUCCESSES)
    if success is None and meaning.success_key:
        raise DatasetError(
            f"{where}: no {meaning.success_key!r} of each step: give another --env.success-key"
        )
    data["success"] = np.zeros(count, bool) if success is None else _flag(where, success)
    margin = own.margin
    if margin is None and meaning.margin is not None:
        margin = [meaning.margin(row) for row in obs]
    if margin is not None:
        margin = np.asarray(margin, np.float32)
        data |= {"margin": margin[:count], "next_margin": margin[1 : count + 1]}
    return data


def _scaled(where: str, action: np.ndarray, meaning: Meaning) -> np.ndarray:
    """Return actions [T, A] in [-1, 1] f32; bounds of -1 and 1 leave them exactly equal."""
    low, high = (np.asarray(bound, np.float64) for bound in (meaning.low, meaning.high))
    scaled = ((action - (high + low) / 2.0) / ((high - low) / 2.0)).astype(np.float32)
    if (np.abs(scaled) > 1.0 + TOLERANCE).any():
        raise DatasetError(
            f"{where}: an action of {_extreme(action):.4g} lies beyond the environment's bounds, "
            f"{low.min():.4g} to {high.max():.4g}"
        )
    return np.clip(scaled, -1.0, 1.0)


def _extreme(action: np.ndarray) -> float:
    flat = action.reshape(-1)
    return float(flat[np.argmax(np.abs(flat))])


def _failure(
    where: str, signals: Mapping[str, np.ndarray], after: np.ndarray, meaning: Meaning
) -> np.ndarray:
    """Return C(s, a) of each step, [T] bool: logged, or from the environment's function."""
    logged = _named(signals, meaning.failure_key, FAILURES)
    if logged is not None:
        return _flag(where, logged)
    if meaning.failure is not None:
        rows = [{k: v[t] for k, v in signals.items()} for t in range(len(after))]
        return np.asarray([bool(meaning.failure(*own)) for own in zip(after, rows, strict=True)])
    wanted = repr(meaning.failure_key) if meaning.failure_key else "'failure' or 'cost'"
    has = ", ".join(map(repr, sorted(signals))) or "nothing"
    raise DatasetError(
        f"{where}: no {wanted} of each step, only {has}: name the key with --env.failure-key, add "
        "it to the data, or write a function failure(obs, info) in the environment's module"
    )


def _named(
    signals: Mapping[str, np.ndarray], key: str | None, usual: Sequence[str]
) -> np.ndarray | None:
    names = usual if key is None else (key,)
    return next((signals[name] for name in names if name in signals), None)


def _flag(where: str, values: np.ndarray) -> np.ndarray:
    """Return numbers [T] or [T, 1] as flags, true above 0."""
    if not np.issubdtype(values.dtype, np.number) and values.dtype != bool:
        raise DatasetError(f"{where}: failure and success must be numbers; got {values.dtype}")
    if not np.isfinite(values).all():
        raise DatasetError(f"{where}: failure or success is not finite")
    return (values > 0).any(axis=tuple(range(1, values.ndim)))
