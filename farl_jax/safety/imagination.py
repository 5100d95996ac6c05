"""C_H: the world model imagines the task policy's next steps, and how likely each fails."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from farl_jax.agent import Agent
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.safety.gate import Gate, Risk
from farl_jax.types import Params
from farl_jax.world_model.latent import LatentModel


def discounted_risk(probability: jax.Array, horizon: jax.Array, gamma_risk: jax.Array) -> jax.Array:
    """sum_{i=0..H} gamma_risk^i p_i, terms beyond H masked: [Hmax + 1, ...] -> [...]."""
    i = jnp.arange(probability.shape[0])
    weight = jnp.where(i <= horizon, gamma_risk**i, 0.0)
    return jnp.tensordot(weight, probability, axes=1)


def failure_probabilities(
    model: LatentModel,
    params: Params,
    mean_action: Callable[[jax.Array], jax.Array],
    obs: jax.Array,
    action: jax.Array,
    max_horizon: int,
    hold: int,
) -> jax.Array:
    """p_0..p_Hmax of doing `action` now and the task policy's mean after: [Hmax + 1, ...].

    Args:
        model, params: the world model.
        mean_action: normalised (decoded) observation -> task policy's mean action.
        obs: normalised [..., D].
        action: [..., A]; clipped here as the environment clips it.
        max_horizon: static number of imagined steps.
        hold: static number of imagined steps for which each action is held; 1 asks the task
            policy at every step.
    """
    call = lambda name, *args: model.apply(params, *args, method=name)

    def steps(z: jax.Array, a: jax.Array, number: int) -> tuple[jax.Array, list[jax.Array]]:
        latents = []
        for _ in range(number):
            latents.append(z)
            z = call("next", z, a)
        return z, latents

    def imagine(carry: tuple[jax.Array, jax.Array], _: None):
        z, a = carry
        z, latents = steps(z, a, hold)
        return (z, mean_action(call("decode", z))), (jnp.stack(latents), jnp.stack([a] * hold))

    start = call("encode", obs), jnp.clip(action, -1.0, 1.0)
    (z, a), imagined = jax.lax.scan(imagine, start, None, max_horizon // hold)
    z, rest = steps(z, a, max_horizon % hold)
    last = jnp.stack([*rest, z]), jnp.stack([a] * (len(rest) + 1))
    join = lambda blocks, end: jnp.concatenate([blocks.reshape(-1, *end.shape[1:]), end])
    latents, actions = jax.tree.map(join, imagined, last)
    # one call for all steps: the head of a single one is too small to keep the processor busy
    return jax.nn.sigmoid(call("failure", latents, actions))


def imagine(
    nets: tuple[GaussianPolicy, LatentModel],
    learnt: Agent,
    obs: jax.Array,
    action: jax.Array,
    max_horizon: int,
    hold: int,
) -> jax.Array:
    """`failure_probabilities` of what was learnt: normalised obs [..., D] -> [Hmax + 1, ...]."""
    policy, model = nets
    mean_action = lambda decoded: policy.apply(learnt.policy, decoded)[0]
    params = learnt.world_model
    return failure_probabilities(model, params, mean_action, obs, action, max_horizon, hold)


def make_imagined_risk(
    nets: tuple[GaussianPolicy, LatentModel],
    learnt: Agent,
    gate: Gate,
    *,
    max_horizon: int,
    hold: int,
) -> Risk:
    """C_H of the world model, imagining the task policy.

    Args:
        nets: (policy network, world model network).
        learnt: task policy and world model, as they are now.
        gate: horizon and gamma_risk, traced.
        max_horizon: static bound of `gate.horizon`.
        hold: steps for which an imagined action lasts.
    """

    def risk(obs: jax.Array, action: jax.Array) -> jax.Array:
        probability = imagine(nets, learnt, obs, action, max_horizon, hold)
        return discounted_risk(probability, gate.horizon, gate.gamma_risk)

    return risk
