"""The methods that are compared: how each differs from Uni-O4, and nothing else.

All start from the same offline checkpoint and run through the same online loop.
"""

from dataclasses import dataclass
from typing import Literal

from farl_jax.schema import SchemaError


@dataclass(frozen=True)
class Method:
    """The parts that a method is made of."""

    title: str
    gate: Literal["none", "world_model", "critic"] = "none"
    """Whose prediction makes recovery act: none, C_H of the world model, or Q_risk of a critic."""
    recovery: Literal["policy", "mppi", "zero"] = "policy"
    """What acts then: the learnt recovery policy, a plan through the world model, or nothing: the
    hand stays where it is and the gripper rests."""
    constraint: Literal["none", "lagrangian", "p3o", "cpo"] = "none"
    """What keeps the failure-episode rate below `constraint.limit`: nothing, a multiplier, an exact
    penalty, or a trust region cut by the constraint."""

    @property
    def gated(self) -> bool:
        """Whether anything may act in the task policy's place."""
        return self.gate != "none"

    @property
    def constrained(self) -> bool:
        """Whether failures enter the policy's update as a cost with a limit."""
        return self.constraint != "none"

    def reads(self, group: str) -> bool:
        """Whether a group of settings (a field of FarlConfig) can change the method's numbers."""
        owners = {
            "safety": self.gated,
            "adaptation": self.gate == "world_model",
            "risk_critic": self.gate == "critic",
            "mppi": self.recovery == "mppi",
            "constraint": self.constrained,
        }
        return owners.get(group, True)


METHODS = {
    "uni_o4": Method("Uni-O4 (gate off)"),
    "farl": Method("FARL (gate on)", gate="world_model"),
    "simple_critic": Method("Simple Critic", gate="critic"),
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
"""The paper's ablations: another way to see failures ahead, another way to recover."""


def find_method(name: str) -> Method:
    """Return the method of this name.

    Raises:
        SchemaError: there is none.
    """
    if name not in METHODS:
        raise SchemaError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]
