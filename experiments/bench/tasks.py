"""`farl tasks`: what each task's scripted controllers achieve, on the native backend."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from envs_mjx import BatchEnv, make, task_class, tasks_named
from experiments.known import shown
from experiments.phases.demos import careless_then_recover, first_runs, new_watch, noisy_expert
from experiments.process.machine import describe_environment
from experiments.process.outputs import check_output, write_json
from farl_jax.config import DemosConfig
from farl_jax.data.margins import foreseen_margin
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.measure.evaluate import first_episodes
from farl_jax.measure.intervals import wilson_interval
from farl_jax.types import Controller, Decision

Episodes = dict[str, np.ndarray]
"""Of N first episodes: score [N], and success, failed, diverged, and of the first
takeover: takeover, recovered, takeover_failed [N] bool."""


def run(task: str, episodes: int, out: Path | None, console: Console) -> list[dict[str, Any]]:
    """Measure one task, a suite or `all`; prints a line each and writes `out`, a JSON file."""
    names = tasks_named(task)
    for name in names:
        task_class(name)  # refuses an unknown one before anything is measured
    check_output("--out", out)
    rows = []
    for name in names:
        row = measure(name, episodes)
        rows.append(row)
        console.print(_line(row), highlight=False, soft_wrap=True)
    if out is not None:
        write_json(out, {"rows": rows, "environment": describe_environment()})
    return rows


def measure(task: Any, episodes: int, seed: int = 0) -> dict[str, Any]:
    """What the controllers of `task` (a name or an object) do in `episodes` episodes each.

    Rates are {"rate", "low", "high", "count"} with a 95 % interval (Wilson), returns are {"mean",
    "standard_error"}; a number that does not exist is None. `recovery` is the share of takeovers,
    the first of an episode, that reach the safe margin within `DemosConfig.recovery_length` steps
    and without a failure; takeovers that the episode's end cuts short count only if they failed
    before.
    """
    started = time.perf_counter()
    env = make(task, "native")
    keys = jax.random.split(jax.random.key(seed), 4)
    random, expert, careless, recovery = (
        _run_first_episodes(env, make_controller, episodes, key)
        for make_controller, key in zip(
            (_random, start_expert, start_careless, _careless_then_recovery), keys, strict=True
        )
    )
    return {
        "task": env.name,
        "episodes": episodes,
        "random_return": _mean(random["score"]),
        "random_failure": rate(random["failed"]),
        "expert_return": _mean(expert["score"]),
        "expert_success": rate(expert["success"]),
        "expert_failure": rate(expert["failed"]),
        "careless_failure": rate(careless["failed"]),
        "recovery": rate(recovery["recovered"][recovery["takeover"]]),
        "recovery_failure": rate(recovery["takeover_failed"][recovery["takeover"]]),
        "diverged": int(sum(part["diverged"].sum() for part in (random, expert, careless))),
        "danger_margin": env.danger_margin,
        "danger_lead": env.danger_lead,
        "safe_margin": env.safe_margin,
        "seconds": time.perf_counter() - started,
    }


def rate(flags: np.ndarray) -> dict[str, Any]:
    """The share of `flags` [N] with Wilson's 95 % interval; where N is 0, None in [0, 1]."""
    low, high = wilson_interval(float(np.sum(flags)), len(flags))
    share = float(np.mean(flags)) if len(flags) else None
    return {"rate": share, "low": low, "high": high, "count": len(flags)}


def recoveries(
    intervened: np.ndarray,
    failure: np.ndarray,
    margin: np.ndarray,
    safe_margin: float,
    recovery_length: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judge the first takeover of each episode.

    Args:
        intervened, failure: [T, N] bool, both False after the episode's end.
        margin: [T, N] m, foreseen after the step.
        safe_margin: m.
        recovery_length: steps that a recovery may take.

    Returns:
        takeover [N]: there was one, and the episode lasted until it was decided. recovered [N]: it
        reached the safe margin, and none of its steps failed. failed [N]: one of its steps did.
    """
    first = first_runs(intervened)
    first &= np.cumsum(first, axis=0) <= recovery_length
    failed = (first & failure).any(axis=0)
    safe = (first & (margin >= safe_margin)).any(axis=0)
    takeover = failed | safe | (first.sum(axis=0) == recovery_length)
    return takeover, safe & ~failed, failed


def _random(env: Any, size: int, key: jax.Array) -> tuple[Any, Controller]:
    def act(memory: Any, state: Any, key: jax.Array) -> tuple[Any, Decision]:
        action = jax.random.uniform(key, (size, env.action_size), minval=-1.0, maxval=1.0)
        return memory, plain_decision(action)

    return None, act


def start_expert(env: Any, size: int, key: jax.Array) -> tuple[Any, Controller]:
    """Memory and controller of `size` experts without noise."""
    return None, noisy_expert(env, jnp.zeros(size))


def start_careless(
    env: Any, size: int, key: jax.Array, danger_margin: float = -np.inf
) -> tuple[Any, Controller]:
    """Memory and controller of `size` careless operators; recovery takes over at the margin, m."""
    traits = jax.vmap(env.careless_traits)(jax.random.split(key, size))
    margin = jnp.float32(danger_margin)
    config = DemosConfig(recovery_noise=0.0)
    return new_watch(size), careless_then_recover(env, traits, margin, config)


def _careless_then_recovery(env: Any, size: int, key: jax.Array) -> tuple[Any, Controller]:
    return start_careless(env, size, key, env.danger_margin)


MakeController = Callable[[Any, int, jax.Array], tuple[Any, Controller]]


def _run_first_episodes(
    env: Any, make_controller: MakeController, episodes: int, key: jax.Array
) -> Episodes:
    """Run `episodes` whole episodes at once, in one compiled program."""
    batch = BatchEnv(env, episodes)

    def roll(key: jax.Array) -> tuple[jax.Array, ...]:
        key_controller, key_reset, key_roll = jax.random.split(key, 3)
        memory, controller = make_controller(env, episodes, key_controller)
        state = batch.reset(key_reset)
        *_, steps, _ = unroll(batch, controller, memory, state, key_roll, env.episode_limit)
        mask = first_episodes(steps)
        flags = (steps.success, steps.failure, steps.diverged, steps.decision.intervened)
        score = jnp.where(mask, steps.reward, 0.0).sum(0)
        soon = foreseen_margin(steps.next_margin, steps.margin, env.danger_lead)
        return *(flag & mask for flag in flags), score, soon

    success, failure, diverged, intervened, score, soon = map(np.asarray, jax.jit(roll)(key))
    takeover, recovered, takeover_failed = recoveries(
        intervened, failure, soon, env.safe_margin, DemosConfig().recovery_length
    )
    return {
        "success": success.any(0),
        "failed": failure.any(0),
        "diverged": diverged.any(0),
        "score": score,
        "takeover": takeover,
        "recovered": recovered,
        "takeover_failed": takeover_failed,
    }


def _mean(values: np.ndarray) -> dict[str, float | None]:
    error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}


def _line(row: dict[str, Any]) -> str:
    parts = [f"{row['task']:<18}"]
    for name in (
        "expert_success",
        "expert_failure",
        "careless_failure",
        "recovery",
        "recovery_failure",
    ):
        found = row[name]
        words = name.replace("_", " ")
        parts.append(
            f"{words} {shown(found['rate'], '.1%')} [{found['low']:.1%}, {found['high']:.1%}]"
        )
    for name in ("random_return", "expert_return"):
        found = row[name]
        words = name.replace("_", " ")
        parts.append(f"{words} {found['mean']:.1f} (se {shown(found['standard_error'], '.1f')})")
    return "  ".join(parts)
