"""The methods that are compared: how each differs from Uni-O4, and nothing else.

All start from the same offline checkpoint and run through the same online loop.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Method:
    """The parts that a method is made of."""

    title: str
    gate: Literal["none", "world_model"] = "none"
    """Whose prediction makes recovery act: none, or C_H of the world model."""
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


METHODS = {
    "uni_o4": Method("Uni-O4 (gate off)"),
    "farl": Method("FARL (gate on)", gate="world_model"),
    "ppo_lagrangian": Method("PPO-Lagrangian", constraint="lagrangian"),
    "p3o": Method("P3O", constraint="p3o"),
    "cpo": Method("CPO", constraint="cpo"),
}

MAIN = ("uni_o4", "farl")
"""The paper's main comparison: baseline, ours."""
