"""C_H and the gate: the one place where the recovery policy may take over (FARL, Eq. for C_H).

    C_H = sum_{i=0..H} gamma_risk^i p_i,   p_i = sigmoid F(z_i, a_i)
    z_0 = h(s), a_0 = what the task policy wants now;  z_{i+1} = d(z_i, a_i), a_i = mean task policy

H + 1 terms; a sum, not a probability.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from farl_jax import distributions
from farl_jax.config import SafetyConfig
from farl_jax.latent import LatentModel
from farl_jax.networks import GaussianPolicy
from farl_jax.types import Controller, Decision, Normalizer, Params


@struct.dataclass
class Gate:
    """The gate's traced numbers: `vmap` over any of them, nothing recompiles."""

    horizon: jax.Array  # [] i32, H <= the static maximum
    gamma_risk: jax.Array  # []
    max_risk: jax.Array  # [] eps_safe; +inf never recovers, below 0 always

    @classmethod
    def create(cls, horizon: int, gamma_risk: float, max_risk: float) -> "Gate":
        """From Python numbers."""
        return cls(jnp.asarray(horizon), jnp.asarray(gamma_risk), jnp.asarray(max_risk))


@struct.dataclass
class GateMemory:
    """How long each environment has been recovering, [N] i32; 0 while the task policy acts."""

    recovering: jax.Array

    @classmethod
    def create(cls, num_envs: int) -> "GateMemory":
        """No recovery under way."""
        return cls(jnp.zeros(num_envs, jnp.int32))


def discounted_risk(
    probability: jax.Array, horizon: jax.Array, gamma_risk: jax.Array
) -> jax.Array:
    """sum_{i=0..H} gamma_risk^i p_i over axis 0, terms beyond H masked: [Hmax + 1, ...] -> [...]."""
    i = jnp.arange(probability.shape[0])
    weight = jnp.where(i <= horizon, gamma_risk**i, 0.0)
    return jnp.tensordot(weight, probability, axes=1)


def failure_probabilities(
    model: LatentModel,
    params: Params,
    logit_shift: jax.Array,
    mean_action: Callable[[jax.Array], jax.Array],
    obs: jax.Array,
    action: jax.Array,
    max_horizon: int,
) -> jax.Array:
    """p_0..p_Hmax of doing `action` now and the task policy's mean after: [Hmax + 1, ...].

    Args:
        model, params: the world model.
        logit_shift: prior-shift correction of the failure logits.
        mean_action: normalised (decoded) observation -> task policy's mean action.
        obs: normalised [..., D].
        action: [..., A]; clipped here as the environment clips it.
        max_horizon: static number of imagined steps.
    """
    call = lambda name, *args: model.apply(params, *args, method=name)

    def imagine(carry: tuple[jax.Array, jax.Array], _: None):
        z, a = carry
        probability = jax.nn.sigmoid(call("failure", z, a) + logit_shift)
        z = call("next", z, a)
        return (z, mean_action(call("decode", z))), probability

    z0, a0 = call("encode", obs), jnp.clip(action, -1.0, 1.0)
    (z, a), probability = jax.lax.scan(imagine, (z0, a0), None, max_horizon)
    last = jax.nn.sigmoid(call("failure", z, a) + logit_shift)
    return jnp.concatenate([probability, last[None]])


def recover(
    risky: jax.Array, recovering: jax.Array, min_steps: int, max_steps: int
) -> tuple[jax.Array, jax.Array]:
    """Who acts now: (recovery acts [N] bool, new length of the recovery under way [N] i32).

    A recovery lasts at least `min_steps` and at most `max_steps`; then the task policy acts once.
    """
    due = risky | ((recovering > 0) & (recovering < min_steps))
    acts = due & (recovering < max_steps)
    return acts, jnp.where(acts, recovering + 1, 0)


def gated_controller(
    nets: tuple[GaussianPolicy, LatentModel],
    task: Params,
    frozen: tuple[Params, Params, Normalizer, jax.Array],
    gate: Gate,
    config: SafetyConfig,
    *,
    explore: bool,
    max_horizon: int,
) -> Controller:
    """The safety-filtered policy: a_task if C_H <= eps_safe, else the recovery policy's mean.

    Args:
        nets: (policy network of both policies, world model network).
        task: the task policy's current parameters.
        frozen: (recovery parameters, world model parameters, normaliser, logit shift).
        gate: horizon, gamma_risk and eps_safe, traced.
        config: minimum and maximum recovery length.
        explore: sample the task action (training) or take its mean.
        max_horizon: static bound of `gate.horizon`.
    """
    policy, model = nets
    recovery, world, normalizer, logit_shift = frozen
    mean_action = lambda obs: policy.apply(task, obs)[0]

    def act(memory: GateMemory, state: Any, key: jax.Array) -> tuple[GateMemory, Decision]:
        obs = normalizer(state.obs)
        mean, log_std = policy.apply(task, obs)
        wanted = distributions.sample(key, mean, log_std) if explore else mean
        probability = failure_probabilities(
            model, world, logit_shift, mean_action, obs, wanted, max_horizon
        )
        cost = discounted_risk(probability, gate.horizon, gate.gamma_risk)
        recovering = jnp.where(state.step_count == 0, 0, memory.recovering)
        acts, recovering = recover(
            cost > gate.max_risk, recovering, config.min_recovery_steps, config.max_recovery_steps
        )
        action = jnp.where(acts[..., None], policy.apply(recovery, obs)[0], wanted)
        decision = Decision(
            action=action,
            log_prob=distributions.log_prob(action, mean, log_std),
            task_action=wanted,
            task_log_prob=distributions.log_prob(wanted, mean, log_std),
            intervened=acts,
            horizon_cost=cost,
        )
        return GateMemory(recovering), decision

    return act


def calibrate_max_risk(
    cost: Any, failure: Any, episode: Any, config: SafetyConfig
) -> dict[str, float]:
    """Choose eps_safe on held-out steps in time order. Host side.

    The smallest threshold (the most cautious) whose trigger rate on steps that are not failing stays
    within `target_trigger_rate`. Recall counts onsets of failure before which the gate fired, at least
    `lead_time` and at most 10 steps earlier.

    Args:
        cost: C_H of each step [M].
        failure: C(s, a) of each step [M] bool.
        episode: episode number of each step [M].

    Returns:
        max_risk, recall, trigger_rate, onsets (number of failure onsets that could be foreseen).
    """
    import numpy as np

    cost, failure, episode = np.asarray(cost), np.asarray(failure), np.asarray(episode)
    calm = cost[~failure]
    max_risk = float(np.quantile(calm, 1.0 - config.target_trigger_rate))
    foreseen = []
    for onset in np.flatnonzero(failure):
        new = onset == 0 or not failure[onset - 1] or episode[onset - 1] != episode[onset]
        window = np.arange(max(0, onset - 10), onset - config.lead_time + 1)
        window = window[episode[window] == episode[onset]] if len(window) else window
        if new and len(window):
            foreseen.append(bool((cost[window] > max_risk).any()))
    return {
        "max_risk": max_risk,
        "recall": float(np.mean(foreseen)) if foreseen else float("nan"),
        "trigger_rate": float((calm > max_risk).mean()),
        "onsets": float(len(foreseen)),
    }
