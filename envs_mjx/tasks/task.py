"""What a task must offer to become an environment. One file per task implements this."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.physics.scene import SceneParts
from envs_mjx.robots.robot import Readings, Robot

__all__ = ["Disturbed", "Episode", "Readings", "Task"]


class Episode(NamedTuple):
    """What stays the same throughout one episode."""

    object_start: jax.Array  # [3] m
    goal: jax.Array  # [3] m
    tcp_start: jax.Array  # [3] m


class Task(Protocol):
    """A scene, a reward, a success, a failure and scripted controllers, all pure."""

    name: str
    robot: Robot  # who does it
    scene_file: str  # which of the robot's scenes, for the Sawyer a file in MetaWorld's folder
    scene_parts: SceneParts  # what the file calls its parts, and which of them collide
    episode_limit: int  # steps
    hand_start: tuple[float, float, float]  # m, where the hand settles before each episode
    hand_low: tuple[float, float, float]  # m, limits of the mocap body
    hand_high: tuple[float, float, float]
    goal_low: tuple[float, float, float]  # m, the observed goal is clipped to these
    goal_high: tuple[float, float, float]
    random_return: float  # mean episode return of uniform random actions
    expert_return: float  # mean episode return of `expert`
    danger_margin: float  # m; demonstrations of recovery begin when the margin sinks below this
    danger_lead: float  # steps ahead, at the present speed, at which both margins count
    safe_margin: float  # m; they end here

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add colliders and sensors to the thin scene."""
        ...

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add what only a viewer sees to the full scene."""
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
    """What a task has besides in which something moves by itself, at random."""

    def enter(
        self, physics: PhysicsState, key: jax.Array
    ) -> tuple[PhysicsState, dict[str, jax.Array]]:
        """Put what moves into a fresh episode; return its sensors' readings by name, too."""
        ...

    def disturb(self, physics: PhysicsState, key: jax.Array) -> PhysicsState:
        """Move it on, before a step."""
        ...
