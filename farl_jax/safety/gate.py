"""The gate: it lets a recovery act where C_H exceeds eps_safe.

    C_H = sum_{i=0..H} gamma_risk^i p_i,   p_i = sigmoid F(z_i, a_i)
    z_0 = h(s), a_0 = what the task policy wants now;  z_{i+1} = d(z_i, a_i), a_i = mean task policy

C_H has H + 1 terms and is a sum, not a probability. Methods differ in their `Risk` (C_H or a risk
critic) and their `Recovery` (the recovery policy, MPPI or a zero action).
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp
from flax import struct

from farl_jax.agent import Agent
from farl_jax.config import SafetyConfig
from farl_jax.nn import distributions
from farl_jax.nn.distributions import Draw
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.types import Controller, Decision, Params

Risk = Callable[[jax.Array, jax.Array], jax.Array]
"""(obs [N, D] normalised, action [N, A]) -> risk [N], which the gate compares with eps_safe."""

Recovery = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[Any, jax.Array]]
"""(plan, obs [N, D] normalised, recovering [N] i32, key) -> (plan, action [N, A]).

`recovering` counts the steps of the current recovery, this one included. It is 1 where a recovery
begins and 0 where none acts. `plan` is the recovery's own memory, kept in `GateMemory`."""


@struct.dataclass
class Gate:
    """The gate's numbers. They are traced, so new values need no compilation."""

    horizon: jax.Array  # [] i32, H <= the static maximum
    gamma_risk: jax.Array  # []
    max_risk: jax.Array  # [] eps_safe; +inf never recovers, below 0 always

    @classmethod
    def create(cls, horizon: int, gamma_risk: float, max_risk: float) -> "Gate":
        """From Python numbers."""
        return cls(jnp.asarray(horizon), jnp.asarray(gamma_risk), jnp.asarray(max_risk))

    def tightened(self, slack: jax.Array) -> "Gate":
        """The same gate with eps_safe times `slack` []."""
        return self.replace(max_risk=self.max_risk * slack)

    def off(self) -> "Gate":
        """The same gate with eps_safe infinite: it never acts."""
        return self.replace(max_risk=jnp.full_like(self.max_risk, jnp.inf))


ALARMS = ("gate_silent", "recovery_late", "recovery_failed", "after_recovery")
"""The gate's recent state, which names the cause of a failure that happens now.

gate_silent: recovery has not acted for QUIET steps. recovery_late: the alarm began at most LATE
steps ago. recovery_failed: the alarm began earlier. after_recovery: recovery last acted more than
PAUSE and fewer than QUIET steps ago."""
QUIET, PAUSE, LATE = 12, 3, 4


@struct.dataclass
class GateMemory:
    """The gate's memory of each environment, [N] i32 each but the plan."""

    recovering: jax.Array  # steps of the current recovery, 0 while the task policy acts
    rested: jax.Array  # steps since recovery last acted, at most QUIET
    alarmed: jax.Array  # steps since the alarm began; a pause under QUIET steps does not end it
    plan: Any = None  # [N, ...] MPPI's last plans, None for other recoveries

    @classmethod
    def create(cls, num_envs: int) -> "GateMemory":
        """Memory before the first step."""
        none = jnp.zeros(num_envs, jnp.int32)
        return cls(none, jnp.full_like(none, QUIET), none)


def remember(memory: GateMemory, acts: jax.Array, recovering: jax.Array) -> GateMemory:
    """Memory after a step: `acts` [N] says where recovery acted, `recovering` [N] for how long."""
    chex.assert_rank(acts, 1)
    chex.assert_equal_shape([memory.recovering, acts, recovering])
    begins = acts & (memory.rested > PAUSE)
    rested = jnp.where(acts, 0, jnp.minimum(memory.rested + 1, QUIET))
    alarmed = jnp.where(begins, 1, memory.alarmed + 1)
    alarmed = jnp.where(rested >= QUIET, 0, alarmed)
    return memory.replace(recovering=recovering, rested=rested, alarmed=alarmed)


def forget(memory: GateMemory, fresh: jax.Array) -> GateMemory:
    """Reset the memory where an episode begins, `fresh` [N] bool.

    The plan stays: a recovery that begins ignores it.
    """
    chex.assert_rank(fresh, 1)
    chex.assert_equal_shape([memory.recovering, fresh])
    begun = GateMemory.create(len(fresh))
    kept = jax.tree.map(
        lambda new, old: jnp.where(fresh, new, old), begun, memory.replace(plan=None)
    )
    return kept.replace(plan=memory.plan)


def alarm(memory: GateMemory) -> jax.Array:
    """Index of ALARMS [N] i32."""
    recent = jnp.where(memory.alarmed <= LATE, 1, 2)
    recent = jnp.where(memory.rested > PAUSE, 3, recent)
    return jnp.where(memory.rested >= QUIET, 0, recent)


def recover(
    risky: jax.Array, memory: GateMemory, config: SafetyConfig
) -> tuple[jax.Array, jax.Array]:
    """(whether recovery acts now [N] bool, steps of the current recovery [N] i32).

    A recovery lasts from `min_recovery_steps` to `max_recovery_steps`. After the maximum the task
    policy acts once. After `patience` steps of one alarm the task policy acts until the alarm ends.
    """
    recovering = memory.recovering
    chex.assert_rank(risky, 1)
    chex.assert_equal_shape([recovering, risky])
    due = risky | ((recovering > 0) & (recovering < config.min_recovery_steps))
    acts = due & (recovering < config.max_recovery_steps) & (memory.alarmed < config.patience)
    return acts, jnp.where(acts, recovering + 1, 0)


def adjust(
    slack: jax.Array,
    failed: jax.Array,
    ended: jax.Array,
    max_risk: jax.Array,
    config: SafetyConfig,
) -> jax.Array:
    """The new slack after a rollout: eps_safe / max_risk, [] in (0, 1].

        log slack <- log slack + limit_rate (failure_limit ended - failed),  eps_safe >= min_risk

    This is integral control of the failure rate. No fixed eps_safe suits all of training: a low
    one stops an early policy from learning, a high one lets a trained policy come close to failure.

    Args:
        slack: [] before the rollout.
        failed: [] failure episodes of the rollout, each counted at its first failing step.
        ended: [] episodes that ended in the rollout.
        max_risk: [] eps_safe at slack 1.
        config: failure_limit, limit_rate and min_risk.
    """
    chex.assert_rank([slack, failed, ended, max_risk], 0)
    if config.failure_limit is None:
        return slack
    least = jnp.clip(config.min_risk / max_risk, 1e-6, 1.0)
    change = config.limit_rate * (config.failure_limit * ended - failed)
    return jnp.clip(slack * jnp.exp(change), least, 1.0)


def policy_recovery(policy: GaussianPolicy, params: Params) -> Recovery:
    """Recovery by the mean action of the learnt recovery policy."""
    return lambda plan, obs, recovering, key: (plan, policy.apply(params, obs)[0])


def zero_recovery(action_size: int) -> Recovery:
    """Recovery by a zero action: no movement and no gripper effort."""
    return lambda plan, obs, recovering, key: (plan, jnp.zeros((*recovering.shape, action_size)))


def gated_controller(
    policy: GaussianPolicy,
    learnt: Agent,
    risk: Risk,
    recovery: Recovery,
    max_risk: jax.Array,
    config: SafetyConfig,
    *,
    explore: bool,
    draw: Draw = jax.random.normal,
) -> Controller:
    """Controller that executes the task action where the gate allows it, else the recovery's.

    Args:
        policy: network of the task policy.
        learnt: current task policy and normaliser.
        risk: risk of the task action.
        recovery: action that replaces it.
        max_risk: [] eps_safe, traced.
        config: lengths of recoveries and alarms.
        explore: sample the task action (training) or take its mean.
        draw: where the sample's noise comes from.
    """

    chex.assert_rank(max_risk, 0)

    def act(memory: GateMemory, state: Any, key: jax.Array) -> tuple[GateMemory, Decision]:
        obs = learnt.normalizer(state.obs)
        mean, log_std = policy.apply(learnt.policy, obs)
        wanted = distributions.sample(key, mean, log_std, draw) if explore else mean
        cost = risk(obs, wanted)
        chex.assert_shape(cost, wanted.shape[:-1])
        memory = forget(memory, state.step_count == 0)
        risky = ~(cost <= max_risk) & (max_risk < jnp.inf)  # NaN counts as risky
        acts, recovering = recover(risky, memory, config)
        memory = remember(memory, acts, recovering)
        plan, rescue = recovery(memory.plan, obs, recovering, key)
        memory = memory.replace(plan=plan)
        action = jnp.where(acts[..., None], rescue, wanted)
        decision = Decision(
            action=action,
            log_prob=distributions.log_prob(action, mean, log_std),
            task_action=wanted,
            task_log_prob=distributions.log_prob(wanted, mean, log_std),
            intervened=acts,
            risk=cost,
            alarm=alarm(memory),
        )
        return memory, decision

    return act
