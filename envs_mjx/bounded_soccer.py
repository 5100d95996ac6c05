"""Bounded Soccer: bring a rolling ball to a goal without letting it roll out of a rectangle."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx import experts_soccer
from envs_mjx.errors import EnvError
from envs_mjx.placement import check_apart, draw_apart
from envs_mjx.rectangle import Bounds, checked_bounds, edge_margin, outline
from envs_mjx.scene import SceneParts
from envs_mjx.shaping import hamacher_product, norm, tolerance
from envs_mjx.task import Episode, Readings

BOUNDS = {"default": Bounds(-0.30, 0.30, 0.50, 0.965)}  # as in the films on the paper's page

_REWARD_RADIUS = 0.07  # m, within which soccer-v3 pays 10; x counts threefold there
_X_WEIGHT = (3.0, 1.0, 1.0)
_POST_X, _POST_Y = 0.10, 0.10  # m from the goal's middle: half width, and where its front line is
_BALL_RADIUS = 0.013  # m, half of the ball's, as MetaWorld's caging term has it
_PAD_REACH, _XZ_REACH = 0.05, 0.005  # m
_GRIP_REACH = _BALL_RADIUS + 0.01  # m
_CAGED = 0.95


@dataclass(frozen=True)
class BoundedSoccer:
    """MetaWorld's soccer-v3 with a boundary. Every number that shapes difficulty is a field."""

    bounds: str | tuple[float, float, float, float] = "default"
    """Name in `BOUNDS`, or x_low, x_high, y_low, y_high in m."""
    object_x: tuple[float, float] = (-0.1, 0.1)
    """Where the ball may start, m. This and the next three are soccer-v3's."""
    object_y: tuple[float, float] = (0.6, 0.7)
    goal_x: tuple[float, float] = (-0.1, 0.1)
    """Where the goal may be, m."""
    goal_y: tuple[float, float] = (0.8, 0.9)
    min_distance: float = 0.15
    """Least distance between the ball's start and the goal, m (soccer-v3)."""
    success_radius: float = 0.07
    """Distance between ball and goal that ends the episode, m (soccer-v3)."""
    episode_limit: int = 250
    """Steps (half of MetaWorld's 500; the films' episodes are no longer)."""

    name: ClassVar[str] = "bounded_soccer"
    scene_file: ClassVar[str] = "sawyer_soccer.xml"
    scene_parts: ClassVar[SceneParts] = SceneParts(
        object_body="soccer_ball",
        object_height=0.03,
        goal_body="goal_whole",
        goal_height=0.0,
        boxed_meshes=("goal_col1", "goal_col2", "goal_col3", "goal_col4", "eGripperBase"),
        claws_collide=True,
        max_contacts=8,
        cone=mujoco.mjtCone.mjCONE_ELLIPTIC,
    )
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.6, 0.2)
    hand_low: ClassVar[tuple[float, float, float]] = (-0.5, 0.40, 0.05)
    hand_high: ClassVar[tuple[float, float, float]] = (0.5, 1.0, 0.5)
    goal_low: ClassVar[tuple[float, float, float]] = (-0.1, 0.8, 0.0)
    goal_high: ClassVar[tuple[float, float, float]] = (0.1, 0.9, 0.0)
    danger_margin: ClassVar[float] = 0.10
    """Distance to the edge at which recovery takes over, m: a ball may start this close to one."""
    safe_margin: ClassVar[float] = 0.12
    """Distance to the edge at which a recovery is over, m."""
    # Means over 1,024 episodes each on the native backend; docs/tasks.md has the standard errors.
    random_return: ClassVar[float] = 16.7
    expert_return: ClassVar[float] = 2079.0

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        checked_bounds(self.bounds, BOUNDS)
        for field in ("object_x", "object_y", "goal_x", "goal_y"):
            low, high = getattr(self, field)
            if not low <= high:
                raise EnvError(f"{field} {(low, high)} is empty; give the lower end first")
        if not self.success_radius > 0.0:
            raise EnvError(f"success_radius must be positive, got {self.success_radius}")
        if self.episode_limit < 1:
            raise EnvError(f"episode_limit must be at least 1, got {self.episode_limit}")
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
        """Draw the starts of ball and goal, both [2] m, at least `min_distance` apart."""
        return draw_apart(
            key, self.object_x, self.object_y, self.goal_x, self.goal_y, self.min_distance
        )

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return soccer-v3's reward: 3 x caging + 6.5 x being in place, 10 at the goal.

        The distance that counts weighs x threefold, and its margin is how far the ball has come.
        Beside the goal and past its front line, being in place is worth less the deeper.
        """
        weight = jnp.array(_X_WEIGHT)
        ball, goal = readings.object_pos, episode.goal
        to_goal = norm((ball - goal) * weight)
        come = norm((ball - episode.object_start) * weight)
        in_place = tolerance(to_goal, 0.0, _REWARD_RADIUS, come)
        front = goal[1] - _POST_Y
        beside = (ball[1] > front) & (jnp.abs(ball[0] - goal[0]) > _POST_X)
        depth = (ball[1] - front) / (1.0 - front)
        in_place = jnp.where(beside, jnp.clip(in_place - 2.0 * depth, 0.0, 1.0), in_place)
        reward = 3.0 * ball_caging(readings, episode) + 6.5 * in_place
        return jnp.where(to_goal < _REWARD_RADIUS, 10.0, reward)

    def success(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return whether the ball is within `success_radius` of the goal."""
        return norm(readings.object_pos - episode.goal) <= self.success_radius

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return how far inside the rectangle the ball's centre is, m; negative outside."""
        return edge_margin(readings.object_pos, self.rectangle)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the action that catches the ball and carries it to the goal, [4]."""
        return experts_soccer.soccer_expert(obs)

    def careless_traits(self, key: jax.Array) -> experts_soccer.CarelessTraits:
        """Draw one episode's careless operator."""
        return experts_soccer.careless_soccer_traits(key, jnp.array(self.rectangle))

    def careless(self, obs: jax.Array, traits: experts_soccer.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return experts_soccer.careless_soccer(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that stops the ball and brings it inward, [4]."""
        return experts_soccer.soccer_recovery(obs, jnp.array(self.rectangle))


def ball_caging(readings: Readings, episode: Episode) -> jax.Array:
    """Return how well the fingers enclose the ball, in [0, 1]: soccer-v3's own caging term.

    Unlike push-v3's, a pad on the wrong side of the ball counts as far away, squeezing is how
    close the pads are rather than the gripper's effort, and the pads' margins depend on where
    they are now (MetaWorld means where they were at reset, but keeps a view of the present).
    """
    ball = readings.object_pos
    gaps = jnp.stack([readings.pads[1, 1] - ball[1], ball[1] - readings.pads[0, 1]])  # [2] m
    margins = jnp.abs(jnp.abs(gaps) - _PAD_REACH)
    caging_y = hamacher_product(*tolerance(gaps, _BALL_RADIUS, _PAD_REACH, margins))
    gripping_y = hamacher_product(*tolerance(gaps, _BALL_RADIUS, _GRIP_REACH, margins))
    xz = jnp.array([0, 2])
    start_gap = norm((episode.object_start - episode.tcp_start)[xz])
    gap = norm((readings.tcp - ball)[xz])
    caging = hamacher_product(caging_y, tolerance(gap, 0.0, _XZ_REACH, start_gap - _XZ_REACH))
    return (caging + jnp.where(caging > _CAGED, gripping_y, 0.0)) / 2.0
