"""The parts and sensors of a scene, for any robot. Host only."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import mujoco

SpecEdit = Callable[[mujoco.MjSpec], None]


class SceneParts(NamedTuple):
    """Names of a scene's parts, and which of them collide. The defaults suit a puck."""

    object_body: str = "obj"
    """The free body; its collider is a sphere, or a cylinder that becomes a box."""
    object_height: float | None = None
    """m, the object's start; None takes where it rests after the hand has settled."""
    goal_body: str | None = None
    """Body at the goal: mocap body 1, moved at reset."""
    goal_height: float | None = None
    """m, of the goal; None takes the object's."""
    boxed_meshes: tuple[str, ...] = ()
    """Colliding meshes, each replaced by a box around it; no other mesh collides."""
    claws_collide: bool = False
    """Whether the claws behind the finger pads collide, too."""
    max_contacts: int | None = None
    """MJX keeps so many of the deepest contacts for each contact dimension; None keeps all."""
    cone: mujoco.mjtCone = mujoco.mjtCone.mjCONE_PYRAMIDAL
    """Shape of the friction cone."""


PUCK_PARTS = SceneParts()


def sensor_slices(model: mujoco.MjModel) -> Mapping[str, slice]:
    """Return, by sensor name, where each reading lies in `sensordata`."""
    slices = {}
    for index in range(model.nsensor):
        start = int(model.sensor_adr[index])
        slices[model.sensor(index).name] = slice(start, start + int(model.sensor_dim[index]))
    return slices


def add_frame_sensor(spec: mujoco.MjSpec, name: str, site: str, kind: mujoco.mjtSensor) -> None:
    """Add a sensor `name` of a site's position or orientation in the world."""
    spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=site)
