"""What every task that slides MetaWorld's puck shares: placement, reward, success."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from envs_mjx.errors import EnvError
from envs_mjx.placement import check_apart, draw_apart
from envs_mjx.scene import SceneParts
from envs_mjx.shaping import caging_reward, norm, tolerance
from envs_mjx.task import Episode, Readings

PUCK_RADIUS = 0.02  # m; also half its height


@dataclass(frozen=True)
class PushTask:
    """MetaWorld's push-v3 without a failure. Every number that shapes difficulty is a field."""

    object_x: tuple[float, float] = (-0.1, 0.1)
    """Where the puck may start, m. This and the next three are push-v3's."""
    object_y: tuple[float, float] = (0.6, 0.7)
    goal_x: tuple[float, float] = (-0.1, 0.1)
    """Where the goal may be, m."""
    goal_y: tuple[float, float] = (0.8, 0.9)
    min_distance: float = 0.15
    """Least distance between the puck's start and the goal, m (push-v3)."""
    success_radius: float = 0.05
    """Distance between puck and goal that ends the episode, m (push-v3)."""
    episode_limit: int = 250
    """Steps (half of MetaWorld's 500; the films' episodes are no longer)."""

    scene_file: ClassVar[str] = "sawyer_push_v3.xml"
    scene_parts: ClassVar[SceneParts] = SceneParts()
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.6, 0.2)
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)
    goal_low: ClassVar[tuple[float, float, float]] = (-0.1, 0.8, 0.01)
    goal_high: ClassVar[tuple[float, float, float]] = (0.1, 0.9, 0.02)

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        for name in ("object_x", "object_y", "goal_x", "goal_y"):
            low, high = getattr(self, name)
            if not low <= high:
                raise EnvError(f"{name} is {(low, high)}: its first number must not be larger")
        check_apart(self.object_y, self.goal_y, self.min_distance)
        for name in ("success_radius", "episode_limit"):
            if not getattr(self, name) > 0:
                raise EnvError(f"{name} is {getattr(self, name)}: it must be above zero")

    def place(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw the starts of puck and goal, both [2] m, at least `min_distance` apart."""
        return draw_apart(
            key, self.object_x, self.object_y, self.goal_x, self.goal_y, self.min_distance
        )

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return push-v3's reward: caging, then (once held) being in place, 10 at the goal."""
        to_goal = norm(readings.object_pos - episode.goal)
        start_to_goal = norm(episode.object_start - episode.goal)
        in_place = tolerance(to_goal, 0.0, self.success_radius, start_to_goal)
        reward = 2.0 * caged(readings, action, episode)
        reward = reward + jnp.where(held(readings), 1.0 + reward + 5.0 * in_place, 0.0)
        return jnp.where(to_goal < self.success_radius, 10.0, reward)

    def success(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return whether the puck is within `success_radius` of the goal."""
        return norm(readings.object_pos - episode.goal) <= self.success_radius


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

    MetaWorld also asks that the gripper is not fully closed, which it cannot be.
    """
    return norm(readings.object_pos - readings.tcp) < 0.02
