"""Totals of an online run, and the metrics row computed from them."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
from flax import struct

from farl_jax.safety.gate import ALARMS
from farl_jax.types import Transition


@struct.dataclass
class Counters:
    """Totals of the training rollouts since the online phase began, [] each."""

    episodes: jax.Array  # i32 ended
    successes: jax.Array  # i32
    failure_episodes: jax.Array  # i32 episodes with at least one failing step, counted at the first
    failing_steps: jax.Array  # i32
    recovered_steps: jax.Array  # i32
    diverged: jax.Array  # i32
    return_sum: jax.Array  # f32 of ended episodes
    gate_silent: jax.Array  # i32 gated failure episodes by the gate's state, see `gate.ALARMS`
    recovery_late: jax.Array  # i32
    recovery_failed: jax.Array  # i32
    after_recovery: jax.Array  # i32
    control_episodes: jax.Array  # i32 ended episodes of the control group, which has no gate
    control_failure_episodes: jax.Array  # i32 failure episodes of the control group

    @classmethod
    def zero(cls) -> "Counters":
        """All totals 0."""
        names = [f.name for f in dataclasses.fields(cls)]
        zeros = {name: jnp.zeros((), jnp.int32) for name in names}
        return cls(**zeros | {"return_sum": jnp.zeros(())})

    def add(self, steps: Transition) -> "Counters":
        """Add the counted steps of a rollout [T, N], or [T] of one environment."""
        chex.assert_equal_shape([steps.done, steps.success, steps.failure, steps.episode_return])
        count = lambda mask: jnp.sum(mask, where=steps.counted, dtype=jnp.int32)
        ended = jnp.where(steps.done, steps.episode_return, 0.0)
        control = steps.decision.control
        gated = steps.first_failure & ~control
        return Counters(
            episodes=self.episodes + count(steps.done),
            successes=self.successes + count(steps.success & steps.done),
            failure_episodes=self.failure_episodes + count(steps.first_failure),
            failing_steps=self.failing_steps + count(steps.failure),
            recovered_steps=self.recovered_steps + count(steps.decision.intervened),
            diverged=self.diverged + count(steps.diverged),
            return_sum=self.return_sum + jnp.sum(ended, where=steps.counted),
            control_episodes=self.control_episodes + count(steps.done & control),
            control_failure_episodes=self.control_failure_episodes
            + count(steps.first_failure & control),
            **{
                name: getattr(self, name) + count(gated & (steps.decision.alarm == i))
                for i, name in enumerate(ALARMS)
            },
        )


def summarize(
    counters: Counters, before: Counters | None, updates: list[dict[str, jax.Array]]
) -> dict[str, float]:
    """One metrics row: totals, rates since `before`, means of the updates' metrics.

    There are no rates if no episode ended since `before`.
    """
    now = jax.device_get(counters)
    totals = {name: float(getattr(now, name)) for name in now.__dataclass_fields__}
    past = jax.device_get(before) if before is not None else None
    since = {
        k: v - (float(getattr(past, k)) if past is not None else 0.0) for k, v in totals.items()
    }
    episodes = since["episodes"]
    sums = {"return": "return_sum", "success": "successes", "failure_rate": "failure_episodes"}
    rates = {f"rollout_{k}": since[v] / episodes for k, v in sums.items()} if episodes else {}
    host = jax.device_get(updates)
    means = {k: float(sum(u[k] for u in host) / len(host)) for k in (host[0] if host else {})}
    totals.pop("return_sum")
    return totals | rates | means
