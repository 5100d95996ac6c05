"""The gate's risk: the world model imagines a policy, and how likely its first failure is to come.

    R(s, a) = sum_{i=0..H} g^i S_i p_i + g^{H+1} S_{H+1} Q^pi(z_{H+1}, a_{H+1}),   g = gamma_risk
    S_i = prod_{j<i} (1 - p_j),   p_i = sigmoid F(z_i, a_i)

R lies in [0, 1]: the discounted probability that the first failure is still to come if `a` is done
now and pi acts after. Without the tail Q it is the paper's C_H in first-passage form. With H = -1
it is the tail alone, a critic on latents.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct

from farl_jax.agent import Agent, Networks
from farl_jax.config import SafetyConfig
from farl_jax.safety.gate import Gate, Judgement, Risk
from farl_jax.types import Params
from farl_jax.world_model.latent import POLICIES, LatentModel


def first_passage(
    probability: jax.Array, tail: jax.Array, horizon: jax.Array, gamma_risk: jax.Array
) -> jax.Array:
    """R of p_0..p_Hmax and Q at step H + 1: [Hmax + 1, ...], [...] -> [...] in [0, 1].

    Terms beyond H <= Hmax are masked, so that both numbers may be traced; a tail of 0 is none.
    """
    i = jnp.arange(len(probability))
    weight = jnp.where(i <= horizon, gamma_risk**i, 0.0)
    unfailed = jnp.cumprod(1.0 - probability, axis=0)
    unfailed = jnp.concatenate([jnp.ones_like(tail)[None], unfailed])  # S_0..S_{Hmax + 1}
    reached = jnp.tensordot(weight, unfailed[:-1] * probability, axes=1)
    beyond = jax.lax.dynamic_index_in_dim(unfailed, horizon + 1, keepdims=False)
    return reached + gamma_risk ** (horizon + 1) * beyond * tail


@struct.dataclass
class Imagined:
    """K + 1 steps of a policy under the world model."""

    latent: jax.Array  # [K + 1, ..., Z]
    action: jax.Array  # [K + 1, ..., A]

    def failures(self, model: LatentModel, params: Params, number: int) -> jax.Array:
        """p_0.. of the first steps, [number, ...], by one call: a single step is too small."""
        some = self.latent[:number], self.action[:number]
        return jax.nn.sigmoid(model.apply(params, *some, method="failure"))

    def tail(self, model: LatentModel, params: Params, policy: str, step: jax.Array) -> jax.Array:
        """max_k Q^pi_k at one step, traced, of one of `latent.POLICIES`: [...]."""
        at = lambda x: jax.lax.dynamic_index_in_dim(x, step, keepdims=False)
        logit = model.apply(params, at(self.latent), at(self.action), method="risk")
        return jax.nn.sigmoid(logit[POLICIES.index(policy)].max(axis=0))


def imagine(
    model: LatentModel,
    params: Params,
    mean_action: Callable[[jax.Array], jax.Array],
    obs: jax.Array,
    action: jax.Array,
    number: int,
    hold: int,
) -> Imagined:
    """Doing `action` now and a policy's mean after.

    Args:
        model, params: the world model.
        mean_action: normalised (decoded) observation -> the policy's mean action.
        obs: normalised [..., D].
        action: [..., A]; clipped here as the environment clips it.
        number: K, static number of transitions.
        hold: static number of imagined steps for which each action is held; 1 asks the policy at
            every step.
    """
    call = lambda name, *args: model.apply(params, *args, method=name)

    def steps(z: jax.Array, a: jax.Array, number: int) -> tuple[jax.Array, list[jax.Array]]:
        latents = []
        for _ in range(number):
            latents.append(z)
            z = call("next", z, a)
        return z, latents

    def block(carry: tuple[jax.Array, jax.Array], _: None):
        z, a = carry
        z, latents = steps(z, a, hold)
        return (z, mean_action(call("decode", z))), (jnp.stack(latents), jnp.stack([a] * hold))

    start = call("encode", obs), jnp.clip(action, -1.0, 1.0)
    blocks, rest = divmod(number, hold)
    (z, a), imagined = jax.lax.scan(block, start, None, blocks)
    z, latents = steps(z, a, rest)
    last = jnp.stack([*latents, z]), jnp.stack([a] * (rest + 1))
    join = lambda blocks, end: jnp.concatenate([blocks.reshape(-1, *end.shape[1:]), end])
    return Imagined(*jax.tree.map(join, imagined, last))


def mean_of(nets: Networks, learnt: Agent, policy: str) -> Callable[[jax.Array], jax.Array]:
    """The mean action of one of `latent.POLICIES` at normalised observations."""
    if policy == "task":
        return lambda obs: nets.policy.apply(learnt.policy, obs)[0]
    return lambda obs: nets.recovery.apply(learnt.recovery, obs)[0]


def imagined_failures(
    nets: Networks, learnt: Agent, obs: jax.Array, action: jax.Array, max_horizon: int, hold: int
) -> jax.Array:
    """p_0..p_Hmax of the task policy: normalised obs [..., D] -> [Hmax + 1, ...]."""
    model, params = nets.latent, learnt.world_model
    imagined = imagine(
        model, params, mean_of(nets, learnt, "task"), obs, action, max(max_horizon, 0), hold
    )
    return imagined.failures(model, params, max_horizon + 1)


def make_policy_risk(
    nets: Networks, learnt: Agent, gate: Gate, config: SafetyConfig, policy: str
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """R of doing an action now and going on by one of `latent.POLICIES`.

    Args:
        nets, learnt: policies and world model, as they are now.
        gate: horizon, at most `config.horizon`, and gamma_risk, traced.
        config: whether the tail counts, and how actions are held.
        policy: whose steps are imagined.
    """
    model, params = nets.latent, learnt.world_model
    mean_action = mean_of(nets, learnt, policy)

    def risk(obs: jax.Array, action: jax.Array) -> jax.Array:
        given = obs, action, config.horizon + config.tail, config.hold
        imagined = imagine(model, params, mean_action, *given)
        probability = imagined.failures(model, params, config.horizon + 1)
        tail = jnp.zeros(obs.shape[:-1])
        if config.tail:
            tail = imagined.tail(model, params, policy, gate.horizon + 1)
        return first_passage(probability, tail, gate.horizon, gate.gamma_risk)

    return risk


def make_imagined_risk(nets: Networks, learnt: Agent, gate: Gate, config: SafetyConfig) -> Risk:
    """What the gate judges an action by, under the configured rule.

    paper: R_task(s, a). helps: the same, and what recovery would leave of it, R_rec(s, a_rec).
    shield: R_rec(s, a), whether recovery could still be trusted after `a`.
    """
    of = lambda policy: make_policy_risk(nets, learnt, gate, config, policy)
    cost = of("recovery" if config.rule == "shield" else "task")
    saved, rescue = of("recovery"), mean_of(nets, learnt, "recovery")

    def judge(obs: jax.Array, action: jax.Array) -> Judgement:
        remedy = saved(obs, rescue(obs)) if config.rule == "helps" else None
        return Judgement(cost(obs, action), remedy)

    return judge
