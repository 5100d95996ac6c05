"""Your own task: push the puck to the goal without tipping it (docs/tutorials/own-task.md).

farl run --task examples.push_upright:PushUpright --preset quick
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx import BoundedPush, Episode, Readings


@dataclass(frozen=True)
class PushUpright(BoundedPush):
    """Bounded Push with another failure: the puck tips."""

    max_lift: float = 0.004
    """How far the puck's rim may rise on one side, m."""

    name: ClassVar[str] = "push_upright"
    danger_margin: ClassVar[float] = 0.002
    danger_lead: ClassVar[float] = 0.0
    safe_margin: ClassVar[float] = 0.003

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add nothing."""

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return how far the rim may still rise, m: max_lift - 2 r sin(tilt)."""
        x, y = readings.object_quat[0], readings.object_quat[1]
        cosine = 1.0 - 2.0 * (x * x + y * y)  # of the angle between the puck's axis and upright
        tilt = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
        lift = 2.0 * 0.02 * jnp.sin(jnp.minimum(tilt, jnp.pi / 2.0))
        return jnp.float32(self.max_lift) - lift
