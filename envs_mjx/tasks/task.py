"""The interface of a task. One file per task implements it."""

from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.physics.scene import SceneParts
from envs_mjx.robots.robot import Point, Readings, Robot

__all__ = ["Disturbed", "Episode", "Readings", "Task"]


class Episode(NamedTuple):
    """Constants of one episode."""

    object_start: jax.Array  # [3] m
    goal: jax.Array  # [3] m
    tcp_start: jax.Array  # [3] m


class Task(Protocol):
    """A scene, a reward, success, failure and scripted controllers; all pure."""

    name: ClassVar[str]
    """In folders and tables."""
    robot: ClassVar[Robot]
    """Which one does it."""
    scene_file: ClassVar[str]
    """The robot's scene; for the Sawyer, a file of MetaWorld."""
    scene_parts: ClassVar[SceneParts]
    """Names of its parts, and which of them collide."""
    hand_start: ClassVar[Point]
    """Where the hand settles before each episode, m."""
    hand_low: ClassVar[Point]
    """Lower limits of the mocap body, m."""
    hand_high: ClassVar[Point]
    """Upper limits, m."""
    goal_low: ClassVar[Point]
    """The observed goal is clipped to at least this, m."""
    goal_high: ClassVar[Point]
    """And to at most this, m."""
    random_return: ClassVar[float]
    """Mean episode return of uniform random actions."""
    expert_return: ClassVar[float]
    """Mean episode return of `expert`."""
    danger_margin: ClassVar[float]
    """Recovery demonstrations begin below it, m."""
    danger_lead: ClassVar[float]
    """Steps ahead at which margins are predicted, at current speed."""
    safe_margin: ClassVar[float]
    """Recovery demonstrations end above it, m."""

    @property
    def episode_limit(self) -> int:
        """Steps of an episode."""
        ...

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add colliders and sensors to the thin scene."""
        ...

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add visual parts to the full scene."""
        ...

    def place(self, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Draw where the object starts and where the goal is, both [2] m on the table."""
        ...

    def reward(self, readings: Readings, action: jax.Array, episode: Episode) -> jax.Array:
        """Return MetaWorld's reward of this step, in [0, 10]."""
        ...

    def success(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return whether the task is done, [] bool."""
        ...

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return the distance to failure in metres, negative while failing."""
        ...

    def expert(self, obs: jax.Array) -> jax.Array:
        """Map an observation to an action that solves the task."""
        ...

    def careless_traits(self, key: jax.Array) -> Any:
        """Draw how a careless operator behaves in one episode."""
        ...

    def careless(self, obs: jax.Array, traits: Any) -> jax.Array:
        """Map an observation to the action of a careless operator."""
        ...

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Map an observation to an action that moves away from danger."""
        ...


@runtime_checkable
class Disturbed(Protocol):
    """The additional interface of a task with a randomly moving disturbance."""

    def enter(
        self, physics: PhysicsState, key: jax.Array
    ) -> tuple[PhysicsState, dict[str, jax.Array]]:
        """Place the disturbance in a new episode; also return its sensor readings by name."""
        ...

    def disturb(self, physics: PhysicsState, key: jax.Array) -> PhysicsState:
        """Move the disturbance before a step."""
        ...
