"""What a robot must offer so that tasks can be posed to it. One file per robot implements this."""

from typing import NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.physics.backends import Control
from envs_mjx.physics.scene import SceneParts, SpecEdit

Point = tuple[float, float, float]
"""x, y, z in the world, m."""


class Readings(NamedTuple):
    """What the sensors say after a step, in world coordinates."""

    tcp: jax.Array  # [3] m, halfway between the finger tips
    hand: jax.Array  # [3] m
    claws: jax.Array  # [2, 3] m, right and left
    pads: jax.Array  # [2, 3] m, right and left
    object_pos: jax.Array  # [3] m
    object_quat: jax.Array  # [4] scalar last, largest component positive (MetaWorld's)
    extra: dict[str, jax.Array]  # readings of the sensors that the task added, by name


class Camera(NamedTuple):
    """Where films are taken from."""

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
    """A scene, a control, readings and a start. Immutable; all but the models is pure.

    The arm's joints and the fingers come first in qpos, then the object's free joint; mocap body
    0 drags the hand, and body 1, where there is one, stands at the goal.
    """

    name: str
    action_size: int
    frame_size: int  # numbers of one observation frame
    frame_positions: tuple[bool, ...]  # which of those are positions in m, which a shift blurs
    object_qpos: int  # where the object's 7 numbers begin in qpos, and its 6 in qvel
    camera: Camera

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
        """Turn an action [action_size] into what the next step is told.

        The hand's target stays within `low` and `high`.
        """
        ...

    def read(self, raw: dict[str, jax.Array]) -> Readings:
        """Sort sensor readings, by name; what is not the robot's own stays in `extra`."""
        ...

    def frame(self, readings: Readings) -> jax.Array:
        """Return what is observed of one moment, [frame_size]."""
        ...


def scalar_last(quat: jax.Array) -> jax.Array:
    """Return MuJoCo's quaternion [w, x, y, z] as SciPy gives it from a rotation matrix.

    Scalar last, and of the two signs the one whose largest component is positive.
    """
    rolled = jnp.roll(quat, -1)
    largest = rolled[jnp.argmax(jnp.abs(rolled))]
    return jnp.where(largest < 0.0, -rolled, rolled)
