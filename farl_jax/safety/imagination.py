"""The gate's risk R: the world model imagines a policy's steps and when it first fails.

    R(s, a) = sum_{i=0..H} g^i S_i p_i + g^{H+1} S_{H+1} Q^pi(z_{H+1}, a_{H+1}),   g = gamma_risk
    S_i = prod_{j<i} (1 - p_j),   p_i = sigmoid F(z_i, a_i)
    z_0 = h(s), a_0 = a;  z_{i+1} = d(z_i, a_i), a_i = mean of pi at the decoded z_i

R is the discounted probability, in [0, 1], of a first failure after doing `a` now and acting by pi
later. With H = -1 it is the tail Q alone, a critic on latents. The paper's risk has neither S_i nor
a tail (`SafetyConfig.form`):

    C_H(s, a) = sum_{i=0..H} g^i p_i
"""

from collections.abc import Callable

import chex
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
    """R from p_0..p_Hmax [Hmax + 1, ...] and Q at step H + 1 [...]: [...] in [0, 1].

    Terms between H and Hmax count 0, so that `horizon` [] and `gamma_risk` [] may be traced.
    Without a tail, Q is 0.
    """
    chex.assert_rank([horizon, gamma_risk], 0)
    chex.assert_equal_rank([probability, tail[None]])
    chex.assert_equal_shape_suffix([probability, tail], tail.ndim)
    i = jnp.arange(len(probability))
    weight = jnp.where(i <= horizon, gamma_risk**i, 0.0)
    unfailed = jnp.cumprod(1.0 - probability, axis=0)
    unfailed = jnp.concatenate([jnp.ones_like(tail)[None], unfailed])  # S_0..S_{Hmax + 1}
    reached = jnp.tensordot(weight, unfailed[:-1] * probability, axes=1)
    beyond = jax.lax.dynamic_index_in_dim(unfailed, horizon + 1, keepdims=False)
    return reached + gamma_risk ** (horizon + 1) * beyond * tail


def discounted_sum(probability: jax.Array, horizon: jax.Array, gamma_risk: jax.Array) -> jax.Array:
    """C_H from p_0..p_Hmax [Hmax + 1, ...]: [...] in [0, H + 1]. Terms beyond H count 0."""
    chex.assert_rank([horizon, gamma_risk], 0)
    i = jnp.arange(len(probability))
    return jnp.tensordot(jnp.where(i <= horizon, gamma_risk**i, 0.0), probability, axes=1)


def accumulated(
    probability: jax.Array, tail: jax.Array, gate: Gate, config: SafetyConfig
) -> jax.Array:
    """R or C_H, by `config.form`, from p_0..p_Hmax [Hmax + 1, ...] and Q at step H + 1 [...]."""
    chex.assert_equal_shape_suffix([probability, tail], tail.ndim)
    if config.form == "sum":
        return discounted_sum(probability, gate.horizon, gate.gamma_risk)
    return first_passage(probability, tail, gate.horizon, gate.gamma_risk)


@struct.dataclass
class Imagined:
    """K + 1 steps of a policy in the world model."""

    latent: jax.Array  # [K + 1, ..., Z]
    action: jax.Array  # [K + 1, ..., A]

    def failures(self, model: LatentModel, params: Params, number: int) -> jax.Array:
        """p_i of the first `number` steps, [number, ...].

        One call for all steps: small calls leave the processor idle.
        """
        some = self.latent[:number], self.action[:number]
        return jax.nn.sigmoid(model.apply(params, *some, method="failure"))

    def tail(self, model: LatentModel, params: Params, policy: str, step: jax.Array) -> jax.Array:
        """mean_k Q^pi_k [...] at one `step` [], which may be traced; see `latent.POLICIES`."""
        at = lambda x: jax.lax.dynamic_index_in_dim(x, step, keepdims=False)
        logit = model.apply(params, at(self.latent), at(self.action), method="risk")
        return jax.nn.sigmoid(logit[POLICIES.index(policy)]).mean(axis=0)


def imagine(
    model: LatentModel,
    params: Params,
    mean_action: Callable[[jax.Array], jax.Array],
    obs: jax.Array,
    action: jax.Array,
    number: int,
    hold: int,
) -> Imagined:
    """`action` now and a policy's mean actions after it.

    Args:
        model, params: the world model.
        mean_action: normalised (decoded) observation -> the policy's mean action.
        obs: normalised [..., D].
        action: [..., A], clipped to [-1, 1] as in the environment.
        number: static number K of imagined steps after the first.
        hold: static number of imagined steps between two actions of the policy.
    """
    chex.assert_equal_rank([obs, action])
    chex.assert_equal_shape_prefix([obs, action], obs.ndim - 1)
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
    """Mean action of one of `latent.POLICIES` at normalised observations: [..., D] -> [..., A]."""
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
    """Build R of one of `latent.POLICIES`: (obs [..., D] normalised, action [..., A]) -> [...].

    Args:
        nets: networks.
        learnt: current policies and world model.
        gate: horizon, at most `config.horizon`, and gamma_risk, traced.
        config: `horizon`, `form`, `tail` and `hold`, static.
        policy: whose steps are imagined after the action.
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
        return accumulated(probability, tail, gate, config)

    return risk


def make_imagined_risk(nets: Networks, learnt: Agent, gate: Gate, config: SafetyConfig) -> Risk:
    """Build the risk of the world model, as the configured rule needs it; see `gate`.

    The risk is R_rec(s, a) under the rule `shield`, else R_task(s, a). Both rules that are not the
    paper's add R_rec(s, a_rec) as the remedy.
    """
    of = lambda policy: make_policy_risk(nets, learnt, gate, config, policy)
    risk = of("recovery" if config.rule == "shield" else "task")
    recovered, rescue = of("recovery"), mean_of(nets, learnt, "recovery")

    def judge(obs: jax.Array, action: jax.Array) -> Judgement:
        remedy = None if config.rule == "paper" else recovered(obs, rescue(obs))
        return Judgement(risk(obs, action), remedy)

    return judge


def make_backup_risk(nets: Networks, learnt: Agent) -> Risk:
    """Build SOOPER's switch (arXiv 2601.19612): Q^rec(z, a) alone, without imagined steps.

    It is a cost critic under the backup policy: could recovery still prevent a failure after `a`?
    SOOPER adds the cost of the episode so far. A failure costs 1, so a failed episode would belong
    to the backup policy. Here the task policy goes on where R is low again.
    """
    call = lambda name, *args: nets.latent.apply(learnt.world_model, *args, method=name)

    def judge(obs: jax.Array, action: jax.Array) -> Judgement:
        logit = call("risk", call("encode", obs), jnp.clip(action, -1.0, 1.0))
        return Judgement(jax.nn.sigmoid(logit[POLICIES.index("recovery")]).mean(axis=0))

    return judge
