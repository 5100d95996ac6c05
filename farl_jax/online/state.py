"""The whole state of an online run."""

from typing import Any

import jax
from flax import struct

from farl_jax.agent import Agent
from farl_jax.online.counters import Counters
from farl_jax.safety.gate import GateMemory
from farl_jax.safety.risk_critic import RiskLearning
from farl_jax.updates import constrained, ppo
from farl_jax.world_model.adaptation import Adaptation


@struct.dataclass
class OnlineState:
    """The whole state of an online run: restoring it continues exactly where it stopped."""

    learners: ppo.ActorCritic | constrained.ConstrainedLearners
    env_state: Any  # State [N]
    memory: GateMemory  # [N]
    adaptation: Adaptation | RiskLearning | None  # None: what the gate asks is frozen, or no gate
    drift: jax.Array  # [] log(eps_safe / max_risk); see `gate.follow`
    counters: Counters
    key: jax.Array
    env_steps: jax.Array  # [] i32


PER_ENV = ("env_state", "memory")
"""Fields of an `OnlineState` that have a row for each environment."""


def current(state: OnlineState, frozen: Agent) -> Agent:
    """The offline result with the task policy, and what the gate asks, as they now are."""
    learnt = {} if state.adaptation is None else state.adaptation.learnt
    return frozen.replace(policy=state.learners.actor.params, **learnt)
