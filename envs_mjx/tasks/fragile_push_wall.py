"""Fragile Push Wall: slide the puck around a wall to the goal without touching the wall."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.errors import EnvError
from envs_mjx.experts import wall
from envs_mjx.geometry import cylinder_box_distance, norm
from envs_mjx.tasks.placement import check_wall
from envs_mjx.tasks.push import PUCK_RADIUS, PushTask, caged, held
from envs_mjx.tasks.shaping import tolerance
from envs_mjx.tasks.task import Episode, Readings

_HITS_WALL = 4  # a bit of contype and conaffinity that the thin scene does not use
_REWARD_RADIUS = 0.05  # m, push-wall-v3's; its success radius is wider
_MIDPOINT = (-0.05, 0.77)  # m, beside the wall: where push-wall-v3 first wants the puck
_MIDPOINT_SCALE = (3.0, 1.0)  # of x and y


@dataclass(frozen=True)
class FragilePushWall(PushTask):
    """MetaWorld's push-wall-v3, where the wall breaks. What shapes difficulty is a field."""

    object_x: tuple[float, float] = (-0.05, 0.05)
    """Where the puck may start, m. This and the next three are push-wall-v3's."""
    object_y: tuple[float, float] = (0.6, 0.65)
    goal_x: tuple[float, float] = (-0.05, 0.05)
    """Where the goal may be, m."""
    goal_y: tuple[float, float] = (0.85, 0.9)
    success_radius: float = 0.07
    """Distance between puck and goal that ends the episode, m (push-wall-v3)."""
    wall_center: tuple[float, float, float] = (0.1, 0.75, 0.06)
    """m (push-wall-v3)."""
    wall_half_size: tuple[float, float, float] = (0.12, 0.01, 0.06)
    """m (push-wall-v3)."""
    contact_tolerance: float = 0.001
    """A puck nearer to the wall has touched it, m. See `failure_margin`."""

    name: ClassVar[str] = "fragile_push_wall"
    scene_file: ClassVar[str] = "sawyer_push_wall_v3.xml"
    goal_low: ClassVar[tuple[float, float, float]] = (-0.05, 0.85, 0.01)
    goal_high: ClassVar[tuple[float, float, float]] = (0.05, 0.9, 0.02)
    danger_margin: ClassVar[float] = 0.06
    danger_lead: ClassVar[float] = 0.0
    safe_margin: ClassVar[float] = 0.07
    # Means over 1,000 episodes each on the native backend: standard errors 0.4 and 2.3.
    random_return: ClassVar[float] = 15.1
    expert_return: ClassVar[float] = 1851.8

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        super().__post_init__()
        tolerance = self.contact_tolerance
        check_wall(self.wall_half_size, tolerance, PUCK_RADIUS, "the puck's radius")
        (x, y), (half_x, half_y) = self.wall_center[:2], self.wall_half_size[:2]
        for name in ("object", "goal"):
            (x_low, x_high), (y_low, y_high) = (
                getattr(self, f"{name}_x"),
                getattr(self, f"{name}_y"),
            )
            gap_x = max(x_low - x - half_x, x - half_x - x_high)
            gap_y = max(y_low - y - half_y, y - half_y - y_high)
            if max(gap_x, gap_y) <= PUCK_RADIUS + self.contact_tolerance:
                raise EnvError(f"a puck at {name}_x, {name}_y can touch the wall from the start")

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add the wall and its colliders: the sides of the puck, the claws and the gripper.

        MetaWorld's wall is two equal boxes with different contact parameters; this one has the
        stiffer ones. The puck's box would meet it with a corner up to 8 mm early; a sphere of the
        puck's radius touches an upright wall exactly where its cylinder does. The claws are the
        outer faces of the fingers; gripper and rail above them are low enough in a push to hit
        the wall before a held puck does.
        """
        stiff = {"solref": (0.01, 1.0), "solimp": (0.99, 0.99, 0.01, 0.5, 2.0)}
        hits = {"contype": _HITS_WALL, "conaffinity": 0, "mass": 0.0}
        spec.worldbody.add_geom(
            name="wall",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=self.wall_center,
            size=self.wall_half_size,
            contype=0,
            conaffinity=_HITS_WALL,
            **stiff,
        )
        spec.body("obj").add_geom(
            name="puck_side",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=(PUCK_RADIUS, 0.0, 0.0),
            condim=4,
            friction=(1.0, 0.1, 0.002),
            **hits,
            **stiff,
        )
        spec.body("right_hand").add_geom(
            name="gripper",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(0.005, 0.0, 0.052),  # MetaWorld's mesh where it is lower than the wall, m
            size=(0.025, 0.049, 0.024),
            **hits,
        )
        spec.body("hand").add_geom(
            name="rail",
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(-0.05, 0.0, 0.0),
            size=(0.005, 0.055, 0.005),
            friction=(2.0, 0.1, 0.002),
            **hits,
        )
        for claw in ("rightclaw_it", "leftclaw_it"):
            spec.geom(claw).contype = _HITS_WALL

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Move MetaWorld's brick wall to this wall's place."""
        wall = spec.body("wall")
        wall.pos = self.wall_center
        for geom in wall.geoms:
            geom.size = self.wall_half_size

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return push-wall-v3's reward: caging, then (once held) a midpoint beside the wall and,
        with the puck beyond y = 0.75 m, the goal; 10 at the goal.
        """
        puck = readings.object_pos
        midpoint, scale = jnp.array(_MIDPOINT), jnp.array(_MIDPOINT_SCALE)
        to_midpoint = norm(scale * (puck[:2] - midpoint))
        # MetaWorld's midpoint has the puck's current height, so the start differs in height, too.
        from_start = norm(
            jnp.append(
                scale * (episode.object_start[:2] - midpoint), episode.object_start[2] - puck[2]
            )
        )
        to_goal = norm(puck - episode.goal)
        start_to_goal = norm(episode.object_start - episode.goal)
        beside_wall = tolerance(to_midpoint, 0.0, _REWARD_RADIUS, from_start)
        in_place = tolerance(to_goal, 0.0, _REWARD_RADIUS, start_to_goal)
        moving = jnp.where(puck[1] > 0.75, 5.0 + 3.0 * in_place, 1.0 + 4.0 * beside_wall)
        reward = 2.0 * caged(readings, action, episode) + jnp.where(held(readings), moving, 0.0)
        return jnp.where(to_goal < _REWARD_RADIUS, 10.0, reward)

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return the distance between puck and wall less `contact_tolerance`, m.

        The puck counts as the upright cylinder that MetaWorld has, whatever collides here.
        Contact is soft, so a puck that rests against the wall is a hair inside or outside it, and
        one that bounced off within a step is already a little away: hence the tolerance.
        """
        half = jnp.array(self.wall_half_size)
        distance = cylinder_box_distance(
            readings.object_pos, PUCK_RADIUS, PUCK_RADIUS, jnp.array(self.wall_center), half
        )
        return distance - self.contact_tolerance

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the scripted action, [4]."""
        return wall.wall_expert(obs, self._wall())

    def careless_traits(self, key: jax.Array) -> wall.CarelessTraits:
        """Draw one episode's careless operator."""
        return wall.careless_wall_traits(key)

    def careless(self, obs: jax.Array, traits: wall.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return wall.careless_wall(obs, traits, self._wall())

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that takes the puck away from the wall, [4]."""
        return wall.wall_recovery(obs, self._wall())

    def _wall(self) -> jax.Array:
        """Return x_low, x_high, y_low, y_high of the wall, [4] m."""
        (x, y), (half_x, half_y) = self.wall_center[:2], self.wall_half_size[:2]
        return jnp.array([x - half_x, x + half_x, y - half_y, y + half_y])
