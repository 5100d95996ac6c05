"""The loop that steps environments, for demonstrations, training, evaluation and films."""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from farl_jax.nn import distributions
from farl_jax.nn.distributions import Draw
from farl_jax.types import BatchedEnv, Controller, Decision, Normalizer, Params, Transition


def unroll(
    env: BatchedEnv,
    controller: Controller,
    memory: Any,
    state: Any,
    key: jax.Array,
    length: int,
    observe: Callable[[Any, Any], Any] = lambda state, outcome: None,
) -> tuple[Any, Any, Transition, Any]:
    """Step N environments `length` times with a controller. Ended episodes are reset.

    Args:
        env: the batched environment.
        controller: (memory, State [N], key) -> (memory, Decision [N]).
        memory: the controller's state. It resets itself where `state.step_count` is 0.
        state: State [N] to start from.
        key: consumed.
        length: number of steps T, static.
        observe: (state before, true outcome) -> further data to keep per step.

    Returns:
        memory, State [N] after the last step, Transition [T, N], and `observe`'s [T, ...].
    """

    def step(carry: tuple[Any, Any], key_step: jax.Array):
        memory, state = carry
        key_act, key_env = jax.random.split(key_step)
        memory, decision = controller(memory, state, key_act)
        next_state, outcome = env.step(state, decision.action, key_env)
        kept = (_transition(state, decision, outcome), observe(state, outcome))
        return (memory, next_state), kept

    (memory, state), (transitions, extra) = jax.lax.scan(
        step, (memory, state), jax.random.split(key, length)
    )
    return memory, state, transitions, extra


def _transition(state: Any, decision: Decision, outcome: Any) -> Transition:
    return Transition(
        obs=state.obs,
        decision=decision,
        reward=outcome.reward,
        failure=outcome.failure,
        first_failure=outcome.failure & (outcome.failing_steps == 1),
        success=outcome.success,
        terminated=outcome.terminated,
        truncated=outcome.truncated,
        diverged=outcome.diverged,
        next_obs=outcome.obs,
        margin=state.failure_margin,
        next_margin=outcome.failure_margin,
        episode_return=outcome.episode_return,
        failing_steps=outcome.failing_steps,
        step_count=outcome.step_count,
    )


def plain_decision(action: jax.Array) -> Decision:
    """A decision without a policy: action [..., A]."""
    zero = jnp.zeros(action.shape[:-1])
    no = zero.astype(bool)
    return Decision(action, zero, action, zero, no, no, zero, zero.astype(jnp.int32), no)


def policy_controller(
    apply: Callable[[Params, jax.Array], tuple[jax.Array, jax.Array]],
    params: Params,
    normalizer: Normalizer,
    *,
    explore: bool,
    draw: Draw = jax.random.normal,
) -> Controller:
    """The ungated task policy: its mean, or a sample if it explores. Memory is None."""

    def act(memory: Any, state: Any, key: jax.Array) -> tuple[Any, Decision]:
        mean, log_std = apply(params, normalizer(state.obs))
        action = distributions.sample(key, mean, log_std, draw) if explore else mean
        log_prob = distributions.log_prob(action, mean, log_std)
        return memory, plain_decision(action).replace(log_prob=log_prob, task_log_prob=log_prob)

    return act


def handing_over(first: Controller, then: Controller) -> Controller:
    """`first` acts, and after a while `then`. Memory is the steps that `first` still has, [N] i32.

    Both must do without a memory of their own.
    """

    def act(left: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Decision]:
        chex.assert_rank(left, 1)
        (_, before), (_, after) = first(None, state, key), then(None, state, key)
        mask = lambda leaf: (left > 0).reshape(-1, *[1] * (leaf.ndim - 1))
        pick = lambda own, other: jnp.where(mask(own), own, other)
        return left - 1, jax.tree.map(pick, before, after)

    return act
