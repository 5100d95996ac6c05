"""What a task must offer to become an environment. One file per task implements this."""

from typing import Any, NamedTuple, Protocol

import jax
import mujoco

from envs_mjx.physics.scene import SceneParts


class Readings(NamedTuple):
    """What the sensors say after a step, in world coordinates."""

    tcp: jax.Array  # [3] m, halfway between the finger tips
    hand: jax.Array  # [3] m
    claws: jax.Array  # [2, 3] m, right and left
    pads: jax.Array  # [2, 3] m, right and left
    object_pos: jax.Array  # [3] m
    object_quat: jax.Array  # [4] scalar last, largest component positive (MetaWorld's)
    extra: dict[str, jax.Array]  # readings of the sensors that the task added, by name


class Episode(NamedTuple):
    """What stays the same throughout one episode."""

    object_start: jax.Array  # [3] m
    goal: jax.Array  # [3] m
    tcp_start: jax.Array  # [3] m


class Task(Protocol):
    """A scene, a reward, a success, a failure and scripted controllers, all pure."""

    name: str
    scene_file: str  # MJCF file in MetaWorld's folder
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
