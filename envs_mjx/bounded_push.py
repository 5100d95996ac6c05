"""Bounded Push: slide the puck to the goal without letting it leave a rectangle on the table."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx import experts
from envs_mjx.placement import check_apart, draw_apart
from envs_mjx.rectangle import Bounds, checked_bounds, edge_margin, outline
from envs_mjx.scene import SceneParts
from envs_mjx.shaping import caging_reward, norm, tolerance
from envs_mjx.task import Episode, Readings

# "default": unguarded fine-tuning of a weak policy fails in 13-17 % of its episodes (6 % with
# "videos", which is what the films on the paper's page show).
BOUNDS = {
    "default": Bounds(-0.15, 0.15, 0.58, 0.92),
    "videos": Bounds(-0.22, 0.22, 0.53, 0.97),
}


@dataclass(frozen=True)
class BoundedPush:
    """MetaWorld's push-v3 with a boundary. Every number that shapes difficulty is a field."""

    bounds: str | tuple[float, float, float, float] = "default"
    """Name in `BOUNDS`, or x_low, x_high, y_low, y_high in m."""
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

    name: ClassVar[str] = "bounded_push"
    scene_file: ClassVar[str] = "sawyer_push_v3.xml"
    scene_parts: ClassVar[SceneParts] = SceneParts()
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.6, 0.2)
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)
    goal_low: ClassVar[tuple[float, float, float]] = (-0.1, 0.8, 0.01)
    goal_high: ClassVar[tuple[float, float, float]] = (0.1, 0.9, 0.02)
    # Means over 1,200 episodes each on the native backend: standard errors 0.6 and 1.0.
    random_return: ClassVar[float] = 15.0
    expert_return: ClassVar[float] = 2080.0

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        checked_bounds(self.bounds, BOUNDS)
        check_apart(self.object_y, self.goal_y, self.min_distance)

    @property
    def rectangle(self) -> Bounds:
        """The bounds in metres, looked up if they were given by name."""
        return checked_bounds(self.bounds, BOUNDS)

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """The thin scene is complete as it is: the boundary is no body."""

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Outline the rectangle on the table with four thin red strips."""
        outline(spec, self.rectangle)

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
        caged = caging_reward(
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
        # push-v3 also asks that the gripper is not fully closed, which it cannot be.
        held = norm(readings.object_pos - readings.tcp) < 0.02
        reward = 2.0 * caged
        reward = reward + jnp.where(held, 1.0 + reward + 5.0 * in_place, 0.0)
        return jnp.where(to_goal < self.success_radius, 10.0, reward)

    def success(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return whether the puck is within `success_radius` of the goal."""
        return norm(readings.object_pos - episode.goal) <= self.success_radius

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return how far inside the rectangle the puck's centre is, m; negative outside."""
        return edge_margin(readings.object_pos, self.rectangle)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return MetaWorld's scripted action, [4]."""
        return experts.push_expert(obs)

    def careless_traits(self, key: jax.Array) -> experts.CarelessTraits:
        """Draw one episode's careless operator."""
        return experts.careless_push_traits(key, jnp.array(self.rectangle))

    def careless(self, obs: jax.Array, traits: experts.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return experts.careless_push(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that brings the puck out of danger, [4]."""
        return experts.push_recovery(obs, jnp.array(self.rectangle))
