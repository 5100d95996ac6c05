"""The Franka's Bounded Soccer: push a rolling ball along a lane that it must not leave."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.errors import EnvError
from envs_mjx.experts import franka_soccer as scripts
from envs_mjx.geometry import norm
from envs_mjx.physics.scene import SceneParts
from envs_mjx.robots import franka
from envs_mjx.robots.franka import Franka
from envs_mjx.robots.robot import Robot
from envs_mjx.tasks.franka_push import FrankaTask
from envs_mjx.tasks.rectangle import Bounds, edge_margin, outline
from envs_mjx.tasks.shaping import tolerance
from envs_mjx.tasks.task import Episode, Readings

BALL_RADIUS = 0.02  # m
_BALL_MASS = 0.01  # kg
_BEHIND = 0.03  # m behind the ball, where fingers should be
_REACH = 0.02  # m from there, within which they are
_MAT = (0.52, 0.0), 0.175  # m, middle and half width of the turf
# The soft gripper: each finger a box that reaches down to the ball's middle and is broad enough to
# hold it back.
_SOFT_CENTER, _SOFT_HALF = (0.0, 0.0085, 0.042), (0.012, 0.007, 0.016)  # m


@dataclass(frozen=True)
class FrankaBoundedSoccer(FrankaTask):
    """Every number that shapes difficulty is a field. Sizes as seen in the paper's clip."""

    object_x: tuple[float, float] = (0.42, 0.44)
    object_y: tuple[float, float] = (-0.01, 0.01)
    goal_x: tuple[float, float] = (0.62, 0.64)
    goal_y: tuple[float, float] = (-0.01, 0.01)
    lane_half_width: float = 0.04
    """m: the red tapes are 8 cm apart."""
    lane_x: tuple[float, float] = (0.36, 0.70)
    """Where the lane begins and ends, m."""
    rolling_resistance: float = 0.12
    """m/s^2, by which turf slows a ball at first: one rolled at 0.3 m/s stops after 0.5 m."""

    name: ClassVar[str] = "franka_bounded_soccer"
    robot: ClassVar[Robot] = Franka()
    scene_parts: ClassVar[SceneParts] = SceneParts(
        object_body="ball", object_height=BALL_RADIUS, cone=mujoco.mjtCone.mjCONE_ELLIPTIC
    )
    danger_margin: ClassVar[float] = 0.015
    danger_lead: ClassVar[float] = 5.0
    safe_margin: ClassVar[float] = 0.025
    # Means over 1,000 episodes each on the native backend: standard errors 3.3 and 0.3.
    random_return: ClassVar[float] = 98.3
    expert_return: ClassVar[float] = 1694.9

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        super().__post_init__()
        if not self.lane_half_width > 0:
            raise EnvError(f"lane_half_width is {self.lane_half_width}: it must be above zero")
        if not self.rolling_resistance >= 0:
            raise EnvError(
                f"rolling_resistance is {self.rolling_resistance}: it must be at least 0"
            )
        if not self.lane_x[0] < self.object_x[0] <= self.goal_x[1] < self.lane_x[1]:
            raise EnvError(
                f"lane_x {self.lane_x} must hold object_x {self.object_x} and goal_x {self.goal_x}"
            )

    @property
    def lane(self) -> Bounds:
        """The rectangle that the ball's centre must stay in, m."""
        return Bounds(*self.lane_x, -self.lane_half_width, self.lane_half_width)

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add the ball and give the hand its soft fingers."""
        self._add_ball(spec)
        for side in ("right", "left"):
            finger = spec.geom(f"{side}_finger")
            finger.pos, finger.size = _SOFT_CENTER, _SOFT_HALF

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add the ball, the turf, two lines of tape and the soft fingers."""
        self._add_ball(spec)
        (x, y), half = _MAT
        shape = {"type": mujoco.mjtGeom.mjGEOM_BOX, "contype": 0, "conaffinity": 0}
        spec.worldbody.add_geom(
            pos=(x, y, 0.0002), size=(half, half, 0.0002), rgba=(0.20, 0.50, 0.20, 1.0), **shape
        )
        outline(spec, self.lane)
        for side in ("right", "left"):
            spec.body(f"{side}_finger").add_geom(
                pos=_SOFT_CENTER, size=_SOFT_HALF, rgba=(0.15, 0.15, 0.17, 1.0), **shape
            )

    def _add_ball(self, spec: mujoco.MjSpec) -> None:
        """Add a ball that rolls. Rolling friction f [m] slows it by f g / r (1 + 2/5)^-1."""
        ball = spec.worldbody.add_body(name="ball", pos=(0.42, 0.0, BALL_RADIUS))
        ball.add_freejoint()
        rolling = self.rolling_resistance * 1.4 * BALL_RADIUS / 9.81
        ball.add_geom(
            name="ball",
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            size=(BALL_RADIUS, 0.0, 0.0),
            mass=_BALL_MASS,
            contype=franka.ON_TABLE,
            conaffinity=franka.IN_GRIP,
            condim=6,
            friction=(0.5, 0.005, rolling),
            rgba=(0.95, 0.95, 0.95, 1.0),
        )

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return 2 x being behind the ball, then (once there) 1 + 6 x being in place.

        In place is how near the ball is to the goal, in [0, 1]; at the goal the reward is 10.
        """
        ball = readings.object_pos
        behind = jnp.stack([_BEHIND, 0.0 * _BEHIND, 0.0 * _BEHIND])
        gap = norm(readings.tcp - ball + behind)
        start_gap = norm(episode.tcp_start - episode.object_start + behind)
        reach = tolerance(gap, 0.0, _REACH, start_gap)
        to_goal = norm((episode.goal - ball)[:2])
        whole = norm((episode.goal - episode.object_start)[:2])
        in_place = tolerance(to_goal, 0.0, self.success_radius, whole)
        there = jnp.where(gap < 2.0 * _REACH, 1.0 + 6.0 * in_place, 0.0)
        return jnp.where(self.success(readings, episode), 10.0, 2.0 * reach + there)

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return how far inside the lane the ball's centre is, m; negative outside."""
        return edge_margin(readings.object_pos, self.lane)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the scripted action, [4]."""
        return scripts.soccer_expert(obs)

    def careless_traits(self, key: jax.Array) -> scripts.CarelessTraits:
        """Draw one episode's careless operator."""
        return scripts.careless_traits(key)

    def careless(self, obs: jax.Array, traits: scripts.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return scripts.careless_soccer(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that hooks the ball and brings it back to the lane's middle, [4]."""
        return scripts.soccer_recovery(obs)
