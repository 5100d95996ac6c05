"""The gate: the one place where a recovery may take over.

Methods differ in the two parts that the gate is given: a `Risk` (see `imagination`, or a critic's)
and a `Recovery` (the learnt policy, or what stands in for it). Three rules, see `SafetyConfig`:

    paper    R_task(s, a_task) > eps_safe
    helps    R_task(s, a_task) > eps_safe  and  R_rec(s, a_rec) < R_task(s, a_task) - delta
    shield   R_rec(s, a_task) > eps_safe
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from farl_jax.agent import Agent
from farl_jax.config import SafetyConfig
from farl_jax.nn import distributions
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.types import Controller, Decision, Params


class Judgement(NamedTuple):
    """Of an action of each environment."""

    cost: jax.Array  # [N] in [0, 1], compared with eps_safe
    remedy: jax.Array | None = None  # [N] the risk that recovery would leave; None: not asked


Risk = Callable[[jax.Array, jax.Array], Judgement]
"""(obs [N, D] normalised, action [N, A]) -> how risky the action is."""

Recovery = Callable[[Any, jax.Array, jax.Array, jax.Array], tuple[Any, jax.Array]]
"""(plan, obs [N, D] normalised, recovering [N] i32, key) -> (plan, action [N, A]).

`recovering` counts the steps of the recovery under way, this one included: 1 where it begins, 0
where no action is asked for. `plan` is what it keeps in `GateMemory` from step to step."""


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

    def tightened(self, failing: jax.Array, config: SafetyConfig) -> "Gate":
        """The gate at eps_safe = max_risk min(1, failure_limit / failing), `min_risk` at least.

        Proportional control of the share `failing` [] of episodes: a threshold that suits the
        practised policy never lets a beginner learn, and one that suits the beginner lets the
        practised policy graze the danger. Nothing is summed up, so nothing winds up: where the
        limit cannot be met eps_safe is in proportion, and it is back as soon as the share is.
        """
        if config.failure_limit is None:
            return self
        limit = config.failure_limit
        wanted = self.max_risk * limit / jnp.maximum(failing, limit)
        return self.replace(max_risk=jnp.clip(wanted, config.min_risk, self.max_risk))

    def off(self) -> "Gate":
        """The same gate, never acting."""
        return self.replace(max_risk=jnp.full_like(self.max_risk, jnp.inf))


ALARMS = ("gate_silent", "recovery_late", "recovery_failed", "after_recovery")
"""What the gate has done lately, and so what to blame if a failure happens now. Silent: it has not
acted for QUIET steps. Late: its latest alarm began at most LATE steps ago; failed: earlier. After
recovery: it gave control back more than PAUSE steps ago, but fewer than QUIET."""
QUIET, PAUSE, LATE = 12, 3, 4


@struct.dataclass
class GateMemory:
    """What the gate remembers of each environment, [N] i32 each but the plan."""

    recovering: jax.Array  # steps of the recovery under way, 0 while the task policy acts
    rested: jax.Array  # steps since recovery last acted, at most QUIET
    alarmed: jax.Array  # steps since the alarm began; shorter pauses than QUIET do not end it
    plan: Any = None  # [N, ...] what a recovery that plans goes on from

    @classmethod
    def create(cls, num_envs: int) -> "GateMemory":
        """Nothing has happened yet."""
        none = jnp.zeros(num_envs, jnp.int32)
        return cls(none, jnp.full_like(none, QUIET), none)


def remember(memory: GateMemory, acts: jax.Array, recovering: jax.Array) -> GateMemory:
    """The memory after a step in which recovery `acts` [N] bool, for `recovering` [N] steps now."""
    begins = acts & (memory.rested > PAUSE)
    rested = jnp.where(acts, 0, jnp.minimum(memory.rested + 1, QUIET))
    alarmed = jnp.where(begins, 1, memory.alarmed + 1)
    alarmed = jnp.where(rested >= QUIET, 0, alarmed)
    return memory.replace(recovering=recovering, rested=rested, alarmed=alarmed)


def forget(memory: GateMemory, fresh: jax.Array) -> GateMemory:
    """The memory where an episode begins, `fresh` [N] bool; a plan is never used across one."""
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


def too_risky(
    judged: Judgement, max_risk: jax.Array, recovering: jax.Array, config: SafetyConfig
) -> jax.Array:
    """Whether recovery is asked for, [N] bool.

    Where one is under way (`recovering` [N] i32 > 0) it goes on until the cost is at most the share
    `release` of eps_safe (hysteresis). NaN is a risk, too. A gate at +inf never acts.
    """
    limit = jnp.where(recovering > 0, config.release, 1.0) * max_risk
    risky = ~(judged.cost <= limit) & (max_risk < jnp.inf)
    if judged.remedy is None:
        return risky
    return risky & ~(judged.remedy >= judged.cost - config.delta)


def recover(
    risky: jax.Array, memory: GateMemory, config: SafetyConfig
) -> tuple[jax.Array, jax.Array]:
    """Who acts now: (recovery acts [N] bool, new length of the recovery under way [N] i32).

    A recovery lasts at least `min_recovery_steps` and at most `max_recovery_steps`; then the task
    policy acts once. After `patience` steps of one alarm it acts until the alarm is over.
    """
    recovering = memory.recovering
    due = risky | ((recovering > 0) & (recovering < config.min_recovery_steps))
    acts = due & (recovering < config.max_recovery_steps) & (memory.alarmed < config.patience)
    return acts, jnp.where(acts, recovering + 1, 0)


def failing_share(
    failing: jax.Array, failed: jax.Array, ended: jax.Array, memory: int
) -> jax.Array:
    """Running share of episodes that fail, [], after a rollout.

        failing <- failing + (failed - failing ended) / memory

    Args:
        failing: before the rollout.
        failed: [] episodes that failed in it, each counted at its first failing step.
        ended: [] episodes that ended in it.
        memory: episodes after which an episode counts 1/e of a new one.
    """
    kept = (1.0 - 1.0 / memory) ** ended
    return jnp.minimum(kept * failing + failed / memory, 1.0)


def policy_recovery(policy: GaussianPolicy, params: Params) -> Recovery:
    """The learnt recovery policy's mean."""
    return lambda plan, obs, recovering, key: (plan, policy.apply(params, obs)[0])


def zero_recovery(action_size: int) -> Recovery:
    """No movement and no gripper effort."""
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
) -> Controller:
    """The safety-filtered policy: a_task if its cost is at most eps_safe, else the recovery's.

    Args:
        policy: network of the task policy.
        learnt: task policy and normaliser, as they are now.
        risk: cost of what the task policy wants to do.
        recovery: what acts in its place.
        max_risk: [] eps_safe, traced.
        config: lengths of recoveries and alarms.
        explore: sample the task action (training) or take its mean.
    """

    def act(memory: GateMemory, state: Any, key: jax.Array) -> tuple[GateMemory, Decision]:
        obs = learnt.normalizer(state.obs)
        mean, log_std = policy.apply(learnt.policy, obs)
        wanted = distributions.sample(key, mean, log_std) if explore else mean
        judged = risk(obs, wanted)
        memory = forget(memory, state.step_count == 0)
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
            horizon_cost=judged.cost,
            alarm=alarm(memory),
        )
        return memory, decision

    return act
