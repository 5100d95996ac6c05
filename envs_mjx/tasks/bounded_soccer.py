"""Bounded Soccer: bring a rolling ball to a goal without letting it roll out of a rectangle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.experts import soccer
from envs_mjx.geometry import norm
from envs_mjx.physics.scene import SceneParts
from envs_mjx.tasks.rectangle import BoundedTask, Bounds
from envs_mjx.tasks.shaping import hamacher_product, tolerance
from envs_mjx.tasks.task import Episode, Readings

BOUNDS = {"default": Bounds(-0.30, 0.30, 0.50, 0.965)}  # as in the films on the paper's page

_REWARD_RADIUS = 0.07  # m, within which soccer-v3 pays 10; x counts threefold there
_X_WEIGHT = (3.0, 1.0, 1.0)
_POST_X, _POST_Y = 0.10, 0.10  # m from the goal's middle: half width, and where its front line is
_BALL_RADIUS = 0.013  # m, half the ball's, as in MetaWorld's caging term
_PAD_REACH, _XZ_REACH = 0.05, 0.005  # m
_GRIP_REACH = _BALL_RADIUS + 0.01  # m
_CAGED = 0.95


@dataclass(frozen=True)
class BoundedSoccer(BoundedTask):
    """MetaWorld's soccer-v3 with a boundary. Every number that shapes difficulty is a field."""

    success_radius: float = 0.07
    """Distance between ball and goal that ends the episode, m (soccer-v3)."""
    name: ClassVar[str] = "bounded_soccer"
    named_bounds: ClassVar[Mapping[str, Bounds]] = BOUNDS
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
    goal_low: ClassVar[tuple[float, float, float]] = (-0.1, 0.8, 0.0)
    goal_high: ClassVar[tuple[float, float, float]] = (0.1, 0.9, 0.0)
    danger_margin: ClassVar[float] = 0.10
    """Distance to the edge below which recovery begins, m; a ball may start so close."""
    danger_lead: ClassVar[float] = 50.0
    """Steps ahead at which distances are predicted; nothing slows a rolling ball."""
    safe_margin: ClassVar[float] = 0.12
    """Distance to the edge above which recovery ends, m."""
    # Means over 1,024 episodes each on the native backend; docs/tasks.md has the standard errors.
    random_return: ClassVar[float] = 16.7
    expert_return: ClassVar[float] = 2079.0

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

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the action that catches the ball and carries it to the goal, [4]."""
        return soccer.soccer_expert(obs)

    def careless_traits(self, key: jax.Array) -> soccer.CarelessTraits:
        """Draw one episode's careless operator."""
        return soccer.careless_soccer_traits(key, jnp.array(self.rectangle))

    def careless(self, obs: jax.Array, traits: soccer.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return soccer.careless_soccer(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that stops the ball and brings it inward, [4]."""
        return soccer.soccer_recovery(obs, jnp.array(self.rectangle))


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
