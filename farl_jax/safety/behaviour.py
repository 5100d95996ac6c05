"""The controller of a run: task policy, the method's gate and its recovery."""

from collections.abc import Callable

import jax

from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig
from farl_jax.data.rollout import policy_controller
from farl_jax.methods import Method
from farl_jax.nn.distributions import Draw
from farl_jax.safety.gate import (
    Gate,
    GateMemory,
    Recovery,
    Risk,
    gated_controller,
    policy_recovery,
    zero_recovery,
)
from farl_jax.safety.imagination import make_backup_risk, make_imagined_risk
from farl_jax.safety.mppi import mppi_recovery, start_plans
from farl_jax.safety.risk_critic import make_critic_risk
from farl_jax.types import BatchedEnv, Controller


def make_gate(config: FarlConfig, frozen: Agent, method: Method) -> Gate:
    """The run's H, gamma_risk and eps_safe.

    eps_safe is the configured value, else the calibrated one. The risk critic has its own setting.
    """
    chosen = config.risk_critic.max_risk if method.gate == "critic" else config.safety.max_risk
    max_risk = float(frozen.max_risk) if chosen is None else chosen
    return Gate.create(config.safety.horizon, config.world_model.gamma_risk, max_risk)


def start_memory(config: FarlConfig, method: Method, env: BatchedEnv) -> GateMemory:
    """The controller's memory of N environments before their first step."""
    memory = GateMemory.create(env.num_envs)
    if method.recovery != "mppi":
        return memory
    return memory.replace(plan=start_plans(config.mppi, env.num_envs, env.action_size))


def make_controller(
    nets: Networks,
    config: FarlConfig,
    method: Method,
    *,
    explore: bool,
    control_share: float = 0.0,
) -> Callable[..., Controller]:
    """Build `behave(learnt, gate, draw)`: the task policy, behind the method's gate if it has one.

    `draw` is where the noise of exploration comes from. `control_share` of the episodes have no
    gate.
    """

    def risk_of(learnt: Agent, gate: Gate) -> Risk:
        if method.gate == "critic":
            return make_critic_risk(nets.critic, learnt.risk_critic)
        if method.gate == "backup":
            return make_backup_risk(nets, learnt)
        return make_imagined_risk(nets, learnt, gate, config.safety)

    def recovery_of(learnt: Agent) -> Recovery:
        if method.recovery == "mppi":
            return mppi_recovery(nets.latent, learnt, config.mppi)
        if method.recovery == "zero":
            return zero_recovery(nets.sizes[1])
        return policy_recovery(nets.recovery, learnt.recovery)

    def build(learnt: Agent, gate: Gate, draw: Draw = jax.random.normal) -> Controller:
        if not method.gated:
            return policy_controller(
                nets.policy.apply, learnt.policy, learnt.normalizer, explore=explore, draw=draw
            )
        return gated_controller(
            nets.policy,
            learnt,
            risk_of(learnt, gate),
            recovery_of(learnt),
            gate.max_risk,
            config.safety,
            explore=explore,
            control_share=control_share,
            draw=draw,
        )

    return build
