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

    @property
    def gated(self) -> bool:
        """Whether anything may act in the task policy's place."""
        return self.gate != "none"


METHODS = {
    "uni_o4": Method("Uni-O4 (gate off)"),
    "farl": Method("FARL (gate on)", gate="world_model"),
}

MAIN = ("uni_o4", "farl")
"""The paper's main comparison: baseline, ours."""
