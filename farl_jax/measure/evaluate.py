"""Evaluation of policies: whole first episodes, on fixed keys."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from farl_jax.data.rollout import unroll
from farl_jax.types import BatchedEnv, Controller, Transition


def first_episodes(steps: Transition) -> jax.Array:
    """Mask [T, N] of the steps of each environment's first episode."""
    chex.assert_rank(steps.done, 2)
    ended_before = jnp.cumsum(steps.done, axis=0) - steps.done
    return ended_before == 0


def episode_summary(steps: Transition, env: BatchedEnv) -> dict[str, jax.Array]:
    """Means over first episodes of a rollout [T, N] from reset, T >= the episode limit.

    Returns success, failure_episodes (share), failing_steps, recovered_share (of steps), length,
    return (raw) and normalized_return with its standard error.
    """
    mask = first_episodes(steps)
    chex.assert_equal_shape([mask, steps.reward, steps.failure, steps.success])
    total = lambda x: jnp.sum(jnp.where(mask, x, 0), axis=0)
    length = total(jnp.ones_like(steps.reward))
    failing = total(steps.failure)
    scores = normalized_return(total(steps.reward), env.random_return, env.expert_return)
    return {
        "success": (total(steps.success) > 0).mean(),
        "failure_episodes": (failing > 0).mean(),
        "failing_steps": failing.mean(),
        "recovered_share": total(steps.decision.intervened).sum() / length.sum(),
        "length": length.mean(),
        "return": total(steps.reward).mean(),
        "normalized_return": scores.mean(),
        "normalized_return_se": scores.std(ddof=1) / jnp.sqrt(scores.shape[0]),
        "diverged": total(steps.diverged).sum().astype(jnp.float32),
    }


def make_evaluate(
    env: BatchedEnv, controller_of: Callable[..., tuple[Any, Controller]]
) -> Callable[..., dict[str, jax.Array]]:
    """Build a jitted `evaluate(key, *args)` of `controller_of(*args)` -> (memory, controller).

    Each environment has one episode. With a deterministic controller the key decides only the
    starts. Use keys that training and tuning do not use.
    """

    def evaluate(key: jax.Array, *args: Any) -> dict[str, jax.Array]:
        key_reset, key_roll = jax.random.split(key)
        memory, controller = controller_of(*args)
        state = env.reset(key_reset)
        *_, steps, _ = unroll(env, controller, memory, state, key_roll, env.episode_limit)
        return episode_summary(steps, env)

    return jax.jit(evaluate, compiler_options=dict(env.compiler_options))


def normalized_return(
    episode_return: jax.Array, random_return: float, expert_return: float
) -> jax.Array:
    """100 (R - R_random) / (R_expert - R_random), any shape."""
    return 100.0 * (episode_return - random_return) / (expert_return - random_return)
