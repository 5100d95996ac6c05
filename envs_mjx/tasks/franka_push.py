"""What the Franka's two push tasks share: a cube on a table, dragged to a goal past an obstacle."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.errors import EnvError
from envs_mjx.geometry import box_distance, norm, turned_half
from envs_mjx.physics.scene import SceneParts
from envs_mjx.robots import franka
from envs_mjx.robots.franka import Franka
from envs_mjx.robots.robot import Robot
from envs_mjx.tasks.shaping import tolerance
from envs_mjx.tasks.task import Episode, Readings

CUBE_HALF = 0.025  # m
_CUBE_MASS = 0.05  # kg, of foam
_HELD_REACH = 0.03  # m between cube and finger tips


@dataclass(frozen=True)
class FrankaTask:
    """Where object and goal stand on the Franka's table, and when the one reached the other."""

    object_x: tuple[float, float] = (0.35, 0.38)
    """Where the object may start, m; the robot's base is at 0, and x points away from it."""
    object_y: tuple[float, float] = (-0.02, 0.06)
    goal_x: tuple[float, float] = (0.62, 0.64)
    """Where the goal may be, m."""
    goal_y: tuple[float, float] = (-0.04, 0.04)
    success_radius: float = 0.03
    """Distance between object and goal that ends the episode, m."""
    episode_limit: int = 200
    """Steps of 20 ms."""

    scene_file: ClassVar[str] = "panda.xml"
    hand_start: ClassVar[tuple[float, float, float]] = (0.36, 0.0, 0.12)
    hand_low: ClassVar[tuple[float, float, float]] = (0.32, -0.30, 0.025)
    hand_high: ClassVar[tuple[float, float, float]] = (0.70, 0.25, 0.12)
    goal_low: ClassVar[tuple[float, float, float]] = (0.0, -1.0, 0.0)
    goal_high: ClassVar[tuple[float, float, float]] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        for name in ("object_x", "object_y", "goal_x", "goal_y"):
            low, high = getattr(self, name)
            if not low <= high:
                raise EnvError(f"{name} is {(low, high)}: its first number must not be larger")
        if not isinstance(self.episode_limit, int):
            raise EnvError(f"episode_limit is {self.episode_limit!r}: it must be a whole number")
        for name in ("success_radius", "episode_limit"):
            if not getattr(self, name) > 0:
                raise EnvError(f"{name} is {getattr(self, name)}: it must be above zero")
        if self.goal_x[0] - self.object_x[1] <= self.success_radius:
            raise EnvError(
                f"goal_x {self.goal_x} must be further than success_radius {self.success_radius} "
                f"beyond object_x {self.object_x}"
            )

    def place(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw the starts of object and goal, both [2] m, uniformly."""
        ranges = jnp.array([self.object_x, self.object_y, self.goal_x, self.goal_y])
        drawn = ranges[:, 0] + jax.random.uniform(key, (4,)) * (ranges[:, 1] - ranges[:, 0])
        return drawn[:2], drawn[2:]

    def success(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return whether the object is within `success_radius` of the goal, seen from above."""
        return norm((readings.object_pos - episode.goal)[:2]) <= self.success_radius


@dataclass(frozen=True)
class FrankaPush(FrankaTask):
    """Drag a cube of 5 cm between the fingers to a goal, past an obstacle that must not be touched.

    A task says where the obstacle is: `obstacle_distance` of an upright box.
    """

    robot: ClassVar[Robot] = Franka(sees=(("object_quat", 4),))
    scene_parts: ClassVar[SceneParts] = SceneParts(object_body="cube", object_height=CUBE_HALF)

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add the cube."""
        add_cube(spec)

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add the cube."""
        add_cube(spec)

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return 2 x being at the cube, then (once held) 1 + 6 x being in place; 10 at the goal.

        In place is how much of the way past the obstacle is done, in [0, 1].
        """
        cube = readings.object_pos
        gap = norm(readings.tcp - cube)
        start_gap = norm(episode.tcp_start - episode.object_start)
        reach = tolerance(gap, 0.0, _HELD_REACH, start_gap)
        left = self.way_left(cube[:2], episode.goal[:2])
        whole = self.way_left(episode.object_start[:2], episode.goal[:2])
        in_place = tolerance(left, 0.0, self.success_radius, whole)
        held = jnp.where(gap < _HELD_REACH, 1.0 + 6.0 * in_place, 0.0)
        return jnp.where(self.success(readings, episode), 10.0, 2.0 * reach + held)

    def way_left(self, cube: jax.Array, goal: jax.Array) -> jax.Array:
        """Return how far the cube still has to go, [] m: straight to the goal."""
        return norm(goal - cube)


def add_cube(spec: mujoco.MjSpec) -> None:
    """Add a red cube that slides on the table, is held by the fingers and stopped by a wall."""
    body = spec.worldbody.add_body(name="cube", pos=(0.4, 0.0, CUBE_HALF))
    body.add_freejoint()
    body.add_geom(
        name="cube",
        type=mujoco.mjtGeom.mjGEOM_BOX,
        size=(CUBE_HALF,) * 3,
        mass=_CUBE_MASS,
        contype=franka.ON_TABLE | franka.BLOCKED,
        conaffinity=franka.IN_GRIP,
        friction=(0.5, 0.005, 0.0001),
        rgba=(0.80, 0.10, 0.10, 1.0),
    )


def nearest_part(readings: Readings, center: jax.Array, half: jax.Array) -> jax.Array:
    """Return the least distance [] between an upright box and cube, fingers and hand, m.

    The cube counts as the upright box around it: exact where a corner of it faces a side.
    """
    hand = readings.hand - jnp.array(franka.HAND_CENTER)  # it points down
    parts = [
        (readings.object_pos, turned_half(readings.object_quat, jnp.full(3, CUBE_HALF))),
        (hand, jnp.array(franka.HAND_HALF)),
        *((finger, jnp.array(franka.FINGER_HALF)) for finger in readings.claws),
    ]
    return jnp.min(jnp.stack([box_distance(at, size, center, half) for at, size in parts]))
