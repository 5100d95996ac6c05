"""The Franka's Fragile Push Wall: drag a cube around a box to a line without touching the box."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.errors import EnvError
from envs_mjx.experts import franka_push as scripts
from envs_mjx.geometry import norm
from envs_mjx.robots import franka
from envs_mjx.tasks.franka_push import CUBE_HALF, FrankaPush, nearest_part
from envs_mjx.tasks.placement import check_wall
from envs_mjx.tasks.task import Episode, Readings

_CLEARANCE = 0.045  # m between hand and wall, on the expert's way past


@dataclass(frozen=True)
class FrankaFragilePushWall(FrankaPush):
    """Every number that shapes difficulty is a field. Sizes as seen in the paper's clip."""

    wall_center: tuple[float, float, float] = (0.50, 0.09, 0.06)
    """m."""
    wall_half_size: tuple[float, float, float] = (0.04, 0.10, 0.06)
    """m: 8 x 20 x 12 cm."""
    contact_tolerance: float = 0.001
    """Hand or cube nearer to the wall has touched it, m: contact is soft."""

    name: ClassVar[str] = "franka_fragile_push_wall"
    danger_margin: ClassVar[float] = 0.03
    danger_lead: ClassVar[float] = 0.0
    safe_margin: ClassVar[float] = 0.04
    # Means over 1,000 episodes each on the native backend: standard errors 1.4 and 0.7.
    random_return: ClassVar[float] = 98.9
    expert_return: ClassVar[float] = 1647.6

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        super().__post_init__()
        tolerance = self.contact_tolerance
        check_wall(self.wall_half_size, tolerance, CUBE_HALF, "half the cube,")
        front = self.wall_center[0] - self.wall_half_size[0]
        if front - self.object_x[1] <= scripts.HAND_X:
            raise EnvError(f"a hand at object_x {self.object_x} can touch the wall from the start")

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add the cube and the wall, which stops cube and hand.

        The fingers do not stand out beyond both, so they cannot be what hits it first.
        """
        super().edit_physics(spec)
        self._add_wall(spec, conaffinity=franka.BLOCKED)

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add the cube, a blue wall and the line of tape."""
        super().edit_visuals(spec)
        self._add_wall(spec, rgba=(0.15, 0.35, 0.80, 1.0))
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(sum(self.goal_x) / 2.0, sum(self.goal_y) / 2.0, 0.0005),
            size=(0.006, 0.12, 0.0005),
            rgba=(0.95, 0.95, 0.95, 1.0),
            contype=0,
            conaffinity=0,
        )

    def _add_wall(self, spec: mujoco.MjSpec, **looks: object) -> None:
        spec.worldbody.add_geom(
            name="wall",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=self.wall_center,
            size=self.wall_half_size,
            contype=0,
            **looks,
        )

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return the distance from cube, fingers or hand to the wall, less the tolerance, m."""
        wall = jnp.array(self.wall_center), jnp.array(self.wall_half_size)
        return nearest_part(readings, *wall) - self.contact_tolerance

    def way_left(self, cube: jax.Array, goal: jax.Array) -> jax.Array:
        """Return how far the cube still has to go, [] m: past the wall's end, then to the goal."""
        wall = self._wall()
        side = wall[2] - scripts.HAND_Y - _CLEARANCE
        corner = jnp.stack([wall[1] + scripts.HAND_X + _CLEARANCE, side])
        around = norm(corner - cube) + norm(goal - corner)
        return jnp.where(cube[0] > corner[0], norm(goal - cube), around)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the scripted action, [4]."""
        return scripts.push_expert(obs, self._wall(), _CLEARANCE)

    def careless_traits(self, key: jax.Array) -> scripts.CarelessTraits:
        """Draw one episode's careless operator."""
        return scripts.careless_traits(key)

    def careless(self, obs: jax.Array, traits: scripts.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return scripts.careless_push(obs, traits, self._wall())

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that takes hand and cube away from the wall, [4]."""
        return scripts.push_recovery(obs, self._wall())

    def _wall(self) -> jax.Array:
        """Return x_low, x_high, y_low, y_high of the wall, [4] m."""
        (x, y), (half_x, half_y) = self.wall_center[:2], self.wall_half_size[:2]
        return jnp.array([x - half_x, x + half_x, y - half_y, y + half_y])
