"""Common part of all tasks with MetaWorld's puck: scene and reward."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from envs_mjx.geometry import norm
from envs_mjx.physics.scene import SceneParts
from envs_mjx.tasks.placement import TableTask
from envs_mjx.tasks.shaping import caging_reward, tolerance
from envs_mjx.tasks.task import Episode, Readings

PUCK_RADIUS = 0.02  # m; also half its height


@dataclass(frozen=True)
class PushTask(TableTask):
    """MetaWorld's push-v3 without a failure. Every number that shapes difficulty is a field."""

    scene_file: ClassVar[str] = "sawyer_push_v3.xml"
    scene_parts: ClassVar[SceneParts] = SceneParts()
    goal_low: ClassVar[tuple[float, float, float]] = (-0.1, 0.8, 0.01)
    goal_high: ClassVar[tuple[float, float, float]] = (0.1, 0.9, 0.02)

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return push-v3's reward: caging, then (once held) being in place, 10 at the goal."""
        to_goal = norm(readings.object_pos - episode.goal)
        start_to_goal = norm(episode.object_start - episode.goal)
        in_place = tolerance(to_goal, 0.0, self.success_radius, start_to_goal)
        reward = 2.0 * caged(readings, action, episode)
        reward = reward + jnp.where(held(readings), 1.0 + reward + 5.0 * in_place, 0.0)
        return jnp.where(to_goal < self.success_radius, 10.0, reward)


def caged(readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
    """Return how well the fingers enclose the puck, in [0, 1], as all push tasks measure it."""
    return caging_reward(
        action[3],
        readings.pads[::-1, 1],
        readings.tcp,
        readings.object_pos,
        episode.object_start,
        episode.tcp_start,
        object_radius=0.015,
        pad_reach=0.05,
        xz_reach=0.005,
    )


def held(readings: Readings) -> jax.Array:
    """Return whether the puck is between the finger tips, [] bool.

    MetaWorld also checks that the gripper is not fully closed; here it never is.
    """
    return norm(readings.object_pos - readings.tcp) < 0.02
