"""What a scene is to a task, whatever the robot: its parts and its sensors. Host only."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import mujoco

SpecEdit = Callable[[mujoco.MjSpec], None]


class SceneParts(NamedTuple):
    """What a scene file calls its parts, and which of them collide. The defaults are a puck's."""

    object_body: str = "obj"
    """The free body; its collider is a sphere, or a cylinder that becomes a box."""
    object_height: float | None = None
    """m, where the object starts; None for where it comes to rest while the hand settles."""
    goal_body: str | None = None
    """Body that stands at the goal of each episode: mocap body 1, moved at reset."""
    goal_height: float | None = None
    """m, of the goal; None for the object's."""
    boxed_meshes: tuple[str, ...] = ()
    """Colliding meshes that become boxes fitted around them; all others pass through."""
    claws_collide: bool = False
    """Whether the claws behind the finger pads collide, too."""
    max_contacts: int | None = None
    """MJX keeps this many of the deepest contacts for each contact dimension; None for all."""
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
