"""The gate: it lets a recovery act where a rule on the risk R holds (`SafetyConfig.rule`).

    paper    R_task(s, a_task) > eps_safe
    helps    R_task(s, a_task) > eps_safe  and  R_rec(s, a_rec) < R_task(s, a_task) - delta
    shield   R_rec(s, a_task) > eps_safe  and  R_rec(s, a_rec) < R_rec(s, a_task) - delta

R_pi(s, a) is the risk of doing `a` now and acting by pi after it, see `imagination`. The paper's
rule asks whether the task policy will fail. `shield` asks whether this is the last moment: could
recovery still prevent the failure one step later, and does it help to begin now? Methods differ
in their `Risk` (R or a risk critic) and their `Recovery` (the recovery policy, MPPI or a zero
action).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
from flax import struct

from farl_jax.agent import Agent
from farl_jax.config import SafetyConfig
from farl_jax.nn import distributions
from farl_jax.nn.distributions import Draw
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.types import Controller, Decision, Params, Transition


class Judgement(NamedTuple):
    """Risks in [0, 1] that decide about one action of each environment."""

    risk: jax.Array  # [N] compared with eps_safe
    remedy: jax.Array | None = None  # [N] risk if recovery acts instead; None: the rule ignores it


Risk = Callable[[jax.Array, jax.Array], Judgement]
"""(obs [N, D] normalised, action [N, A]) -> `Judgement` of the actions."""

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

    def adapted(self, drift: jax.Array, config: SafetyConfig) -> "Gate":
        """The same gate with eps_safe = max_risk exp(drift), within [min_risk, 1]; see `follow`.

        A gate that always or never acts stays as it is.
        """
        chex.assert_rank(drift, 0)
        if config.trigger_rate is None:
            return self
        moved = jnp.clip(self.max_risk * jnp.exp(drift), config.min_risk, 1.0)
        fixed = jnp.isinf(self.max_risk) | (self.max_risk < 0.0)
        return self.replace(max_risk=jnp.where(fixed, self.max_risk, moved))

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
    control: jax.Array  # 1 in an episode of the control group: the gate never acts
    plan: Any = None  # [N, ...] MPPI's last plans, None for other recoveries

    @classmethod
    def create(cls, num_envs: int) -> "GateMemory":
        """Memory before the first step."""
        none = jnp.zeros(num_envs, jnp.int32)
        return cls(none, jnp.full_like(none, QUIET), none, none)


def remember(memory: GateMemory, acts: jax.Array, recovering: jax.Array) -> GateMemory:
    """Memory after a step: `acts` [N] says where recovery acted, `recovering` [N] for how long."""
    chex.assert_rank(acts, 1)
    chex.assert_equal_shape([memory.recovering, acts, recovering])
    begins = acts & (memory.rested > PAUSE)
    rested = jnp.where(acts, 0, jnp.minimum(memory.rested + 1, QUIET))
    alarmed = jnp.where(begins, 1, memory.alarmed + 1)
    alarmed = jnp.where(rested >= QUIET, 0, alarmed)
    return memory.replace(recovering=recovering, rested=rested, alarmed=alarmed)


def forget(memory: GateMemory, fresh: jax.Array, control: jax.Array) -> GateMemory:
    """Reset the memory where an episode begins, `fresh` [N] bool.

    `control` [N] bool says which new episodes the gate leaves alone. The plan stays: a recovery
    that begins ignores it.
    """
    chex.assert_rank(fresh, 1)
    chex.assert_equal_shape([memory.recovering, fresh, control])
    begun = GateMemory.create(len(fresh)).replace(control=control.astype(jnp.int32))
    kept = jax.tree.map(
        lambda new, old: jnp.where(fresh, new, old), begun, memory.replace(plan=None)
    )
    return kept.replace(plan=memory.plan)


def alarm(memory: GateMemory) -> jax.Array:
    """Index of ALARMS [N] i32."""
    recent = jnp.where(memory.alarmed <= LATE, 1, 2)
    recent = jnp.where(memory.rested > PAUSE, 3, recent)
    return jnp.where(memory.rested >= QUIET, 0, recent)


def too_risky(
    judged: Judgement, max_risk: jax.Array, recovering: jax.Array, config: SafetyConfig
) -> jax.Array:
    """Whether the rule asks for recovery, [N] bool.

    A recovery that has begun (`recovering` [N] i32 > 0) goes on until the risk is at most `release`
    times eps_safe (hysteresis). NaN counts as risky. A gate at +inf never acts, one below 0 always.
    """
    chex.assert_rank([judged.risk, recovering, max_risk], [1, 1, 0])
    chex.assert_equal_shape([judged.risk, recovering])
    limit = jnp.where(recovering > 0, config.release, 1.0) * max_risk
    risky = ~(judged.risk <= limit) & (max_risk < jnp.inf)
    if judged.remedy is None:
        return risky
    helps = ~(judged.remedy >= judged.risk - config.delta)
    return risky & (helps | (max_risk < 0.0))


def recover(
    risky: jax.Array, memory: GateMemory, config: SafetyConfig
) -> tuple[jax.Array, jax.Array]:
    """(whether recovery acts now [N] bool, steps of the current recovery [N] i32).

    A recovery lasts from `min_recovery_steps` to `max_recovery_steps`. After the maximum the task
    policy acts once. After `patience` steps of one alarm the task policy acts until the alarm ends.
    In an episode of the control group recovery never acts.
    """
    recovering = memory.recovering
    chex.assert_rank(risky, 1)
    chex.assert_equal_shape([recovering, risky])
    due = risky | ((recovering > 0) & (recovering < config.min_recovery_steps))
    acts = due & (recovering < config.max_recovery_steps) & (memory.alarmed < config.patience)
    acts &= memory.control == 0
    return acts, jnp.where(acts, recovering + 1, 0)


def in_control(draw: Draw, key: jax.Array, number: int, share: float) -> jax.Array:
    """Draw which of `number` new episodes belong to the control group: [number] bool."""
    below = jax.scipy.special.ndtri(jnp.float32(share))
    return draw(key, (number,)) < below


PACE = 0.2
"""Largest change of log eps_safe from one rollout to the next."""


def acting_share(steps: Transition) -> jax.Array:
    """Share [] of a rollout's steps [T, N] at which recovery acted.

    Steps that say nothing about eps_safe are left out. After its episode's first failure R is near
    1 for as long as the state keeps failing, and in the control group recovery never acts.
    """
    chex.assert_equal_shape([steps.failing_steps, steps.failure, steps.decision.intervened])
    asked = (steps.failing_steps == steps.failure) & ~steps.decision.control
    if steps.counted is not None:
        asked &= steps.counted
    acted = jnp.sum(steps.decision.intervened, where=asked)
    return acted / jnp.maximum(jnp.sum(asked), 1)


def follow(
    drift: jax.Array, acted: jax.Array, max_risk: jax.Array, config: SafetyConfig
) -> jax.Array:
    """log(eps_safe / max_risk) after a rollout, [].

        drift <- drift + PACE clip(acted / trigger_rate - 1, -1, 1)

    No fixed eps_safe suits all tasks and all of training: with a calibrated risk, what is risky on
    one task happens all the time on another. A rate of recovered steps means the same everywhere.
    Drift stays where eps_safe is within [min_risk, 1], so that nothing winds up.

    Args:
        drift: [] before the rollout, 0 at first.
        acted: [] `acting_share` of the rollout.
        max_risk: [] eps_safe at first.
        config: `trigger_rate`, `min_risk`.
    """
    chex.assert_rank([drift, acted, max_risk], 0)
    if config.trigger_rate is None:
        return drift
    moved = drift + PACE * jnp.clip(acted / config.trigger_rate - 1.0, -1.0, 1.0)
    start = jnp.log(jnp.clip(max_risk, config.min_risk, 1.0))
    return jnp.clip(moved, jnp.log(config.min_risk) - start, -start)


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
    control_share: float = 0.0,
    draw: Draw = jax.random.normal,
) -> Controller:
    """Controller that executes the task action where the gate allows it, else the recovery's.

    Args:
        policy: network of the task policy.
        learnt: current task policy and normaliser.
        risk: judges the task action.
        recovery: action that replaces it.
        max_risk: [] eps_safe, traced.
        config: the rule's numbers, and lengths of recoveries and alarms.
        explore: sample the task action (training), or take its mean.
        control_share: share of episodes that have no gate, the control group.
        draw: source of the sample's noise.
    """

    chex.assert_rank(max_risk, 0)

    def act(memory: GateMemory, state: Any, key: jax.Array) -> tuple[GateMemory, Decision]:
        obs = learnt.normalizer(state.obs)
        mean, log_std = policy.apply(learnt.policy, obs)
        wanted = distributions.sample(key, mean, log_std, draw) if explore else mean
        judged = risk(obs, wanted)
        chex.assert_shape(judged.risk, wanted.shape[:-1])
        fresh = state.step_count == 0
        control = in_control(draw, jax.random.fold_in(key, 1), len(fresh), control_share)
        memory = forget(memory, fresh, control)
        risky = too_risky(judged, max_risk, memory.recovering, config)
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
            risky=risky,
            risk=judged.risk,
            alarm=alarm(memory),
            control=memory.control > 0,
        )
        return memory, decision

    return act
