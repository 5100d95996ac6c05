"""The interface of a robot. One file per robot implements it."""

from typing import ClassVar, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.physics.backends import Control
from envs_mjx.physics.scene import SceneParts, SpecEdit

Point = tuple[float, float, float]
"""x, y, z in the world, m."""


class Readings(NamedTuple):
    """Sensor readings after a step, in world coordinates."""

    tcp: jax.Array  # [3] m, halfway between the finger tips
    hand: jax.Array  # [3] m
    claws: jax.Array  # [2, 3] m, right and left
    pads: jax.Array  # [2, 3] m, right and left
    object_pos: jax.Array  # [3] m
    object_quat: jax.Array  # [4] scalar last, largest component positive (MetaWorld's)
    extra: dict[str, jax.Array]  # readings of the sensors that the task added, by name


class Camera(NamedTuple):
    """The view of films."""

    look_at: Point
    distance: float  # m
    azimuth: float  # degrees
    elevation: float  # degrees


class Channel(NamedTuple):
    """One number of an observation or action. A bound or unit of None is unknown."""

    name: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None


@runtime_checkable
class Robot(Protocol):
    """A scene, a control, readings and a start. Immutable and, except for the models, pure.

    The arm's joints and the fingers come first in qpos, then the object's free joint; mocap body
    0 drags the hand, and body 1, if any, stands at the goal.
    """

    name: ClassVar[str]
    """In messages."""
    action_size: ClassVar[int]
    """Numbers of an action."""
    object_qpos: ClassVar[int]
    """Where the object's 7 numbers begin in qpos, and its 6 in qvel."""
    camera: ClassVar[Camera]
    """The view of films."""

    @property
    def frame_size(self) -> int:
        """Numbers of one observation frame."""
        ...

    @property
    def frame_positions(self) -> tuple[bool, ...]:
        """Which of those are positions, m; a shift adds noise to them."""
        ...

    def physics_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile the thin model that every backend simulates, with named sensors."""
        ...

    def visual_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile the whole scene for films; qpos and mocap bodies as in the physics model."""
        ...

    def settle(self, model: mujoco.MjModel, hand_start: Point) -> mujoco.MjData:
        """Bring the hand to its start on the host, sensors current."""
        ...

    def control(self, physics: PhysicsState, action: jax.Array, low: Point, high: Point) -> Control:
        """Turn an action [action_size] into the next step's commands.

        The hand's target stays within `low` and `high`.
        """
        ...

    def read(self, raw: dict[str, jax.Array]) -> Readings:
        """Sort sensor readings by name; `extra` keeps those of the task."""
        ...

    def frame(self, readings: Readings) -> jax.Array:
        """Return the observed frame, [frame_size]."""
        ...


def scalar_last(quat: jax.Array) -> jax.Array:
    """Return MuJoCo's quaternion [w, x, y, z] as SciPy computes it from a rotation matrix.

    The scalar is last, and the largest component is positive.
    """
    rolled = jnp.roll(quat, -1)
    largest = rolled[jnp.argmax(jnp.abs(rolled))]
    return jnp.where(largest < 0.0, -rolled, rolled)
