"""Placement of an episode's object and goal, and the success of bringing them together."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from envs_mjx.errors import EnvError
from envs_mjx.geometry import norm
from envs_mjx.robots.robot import Robot
from envs_mjx.robots.sawyer import SAWYER
from envs_mjx.tasks.task import Episode, Readings

Range = tuple[float, float]
"""Lower and upper end, m."""


def check_apart(object_y: Range, goal_y: Range, min_distance: float) -> None:
    """Raise an EnvError unless every start and goal are at least `min_distance` apart."""
    if goal_y[1] - object_y[1] < min_distance:
        raise EnvError(
            f"min_distance {min_distance} cannot always be met: the far edge of goal_y "
            f"{goal_y} must be that much beyond object_y {object_y}"
        )


def draw_apart(
    key: jax.Array,
    object_x: Range,
    object_y: Range,
    goal_x: Range,
    goal_y: Range,
    min_distance: float,
) -> tuple[jax.Array, jax.Array]:
    """Draw the starts of object and goal, both [2] m, at least `min_distance` m apart.

    The object and goal x are uniform as in MetaWorld; goal y is uniform over the part of its
    range that is far enough away. MetaWorld draws all anew while too close, which is the same
    given the other three numbers, and weighs those by how much of the range is left to them:
    with push-v3's ranges the two distributions differ by 5 % in total variation, and where all
    goals are far enough, as on push-wall-v3, not at all.
    """
    parts = jax.random.uniform(key, (4,))  # one draw: random bits dominate a reset's cost
    low = jnp.array([object_x[0], object_y[0], goal_x[0]])
    high = jnp.array([object_x[1], object_y[1], goal_x[1]])
    start_x, start_y, drawn_x = low + parts[:3] * (high - low)
    needed = jnp.sqrt(jnp.maximum(min_distance**2 - (drawn_x - start_x) ** 2, 0.0))
    nearest_y = jnp.maximum(goal_y[0], start_y + needed)
    drawn_y = nearest_y + parts[3] * (goal_y[1] - nearest_y)
    return jnp.stack([start_x, start_y]), jnp.stack([drawn_x, drawn_y])


@dataclass(frozen=True)
class TableTask:
    """Common part of all tasks that bring an object on the table to a goal."""

    object_x: tuple[float, float] = (-0.1, 0.1)
    """Where the object may start, m. This and the next three are those of push-v3 and soccer-v3."""
    object_y: tuple[float, float] = (0.6, 0.7)
    goal_x: tuple[float, float] = (-0.1, 0.1)
    """Where the goal may be, m."""
    goal_y: tuple[float, float] = (0.8, 0.9)
    min_distance: float = 0.15
    """Least distance between the object's start and the goal, m (both tasks)."""
    success_radius: float = 0.05
    """Distance between object and goal that ends the episode, m (push-v3)."""
    episode_limit: int = 250
    """Steps (half of MetaWorld's 500, and enough for the paper's films)."""

    robot: ClassVar[Robot] = SAWYER
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.6, 0.2)
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        for name in ("object_x", "object_y", "goal_x", "goal_y"):
            low, high = getattr(self, name)
            if not low <= high:
                raise EnvError(
                    f"{name} is {(low, high)}: its first number must not exceed its second"
                )
        check_apart(self.object_y, self.goal_y, self.min_distance)
        if not isinstance(self.episode_limit, int):
            raise EnvError(f"episode_limit is {self.episode_limit!r}: it must be an integer")
        for name in ("success_radius", "episode_limit"):
            if not getattr(self, name) > 0:
                raise EnvError(f"{name} is {getattr(self, name)}: it must be above 0")

    def place(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw the starts of object and goal, both [2] m, at least `min_distance` apart."""
        return draw_apart(
            key, self.object_x, self.object_y, self.goal_x, self.goal_y, self.min_distance
        )

    def success(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return whether the object is within `success_radius` of the goal."""
        return norm(readings.object_pos - episode.goal) <= self.success_radius


def check_wall(
    half_size: tuple[float, float, float], tolerance: float, below: float, what: str
) -> None:
    """Refuse a wall without extent, or a contact tolerance that hides a touch.

    Args:
      half_size: of the wall, m.
      tolerance: distance that counts as touching, m.
      below: what the tolerance must stay below, m.
      what: name of that length.
    """
    if min(half_size) <= 0:
        raise EnvError(f"wall_half_size is {half_size}: every number must be above 0")
    if not 0 <= tolerance < below:
        raise EnvError(
            f"contact_tolerance is {tolerance}: it must be at least 0 and below {what} {below}"
        )
