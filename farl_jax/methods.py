"""The compared methods, as differences from Uni-O4.

All start from the same offline checkpoint and run in the same online loop.
"""

from dataclasses import dataclass
from typing import Literal

from farl_jax.schema import SchemaError


@dataclass(frozen=True)
class Method:
    """The parts of a method."""

    title: str
    gate: Literal["none", "world_model", "backup", "critic"] = "none"
    """Prediction that triggers recovery: none, R of the world model, its risk head for the recovery
    policy alone, or Q_risk of a critic."""
    recovery: Literal["policy", "mppi", "zero"] = "policy"
    """Recovery: the learnt recovery policy, a plan through the world model, or the zero action,
    which stops the hand."""
    constraint: Literal["none", "lagrangian", "p3o", "cpo"] = "none"
    """Means to keep the failure-episode rate below `constraint.limit`: none, a multiplier, an exact
    penalty, or a trust region cut by the constraint."""

    @property
    def gated(self) -> bool:
        """Whether a gate may replace the task policy's action."""
        return self.gate != "none"

    @property
    def models(self) -> bool:
        """Whether the gate asks the world model."""
        return self.gate in ("world_model", "backup")

    @property
    def constrained(self) -> bool:
        """Whether failures enter the policy's update as a cost with a limit."""
        return self.constraint != "none"

    def reads(self, group: str) -> bool:
        """Whether a group of settings (a field of FarlConfig) can change this method's numbers."""
        owners = {
            "safety": self.gated,
            "adaptation": self.models,
            "risk_critic": self.gate == "critic",
            "mppi": self.recovery == "mppi",
            "constraint": self.constrained,
        }
        return owners.get(group, True)


METHODS = {
    "uni_o4": Method("Uni-O4 (gate off)"),
    "farl": Method("FARL (gate on)", gate="world_model"),
    "simple_critic": Method("Simple Critic", gate="critic"),
    "sooper": Method("SOOPER's switch", gate="backup"),
    "mppi": Method("MPPI recovery", gate="world_model", recovery="mppi"),
    "no_recovery": Method("No recovery policy", gate="world_model", recovery="zero"),
    "ppo_lagrangian": Method("PPO-Lagrangian", constraint="lagrangian"),
    "p3o": Method("P3O", constraint="p3o"),
    "cpo": Method("CPO", constraint="cpo"),
}

BASELINE = "uni_o4"
OURS = "farl"
MAIN = (BASELINE, OURS)
"""The paper's main comparison."""

RIVALS = ("simple_critic", "mppi")
"""The paper's ablations: another gate, another recovery."""


def find_method(name: str) -> Method:
    """Return the method with this name.

    Raises:
        SchemaError: no method has this name.
    """
    if name not in METHODS:
        raise SchemaError(f"unknown method {name!r}. Choose one of {', '.join(METHODS)}")
    return METHODS[name]
