"""MetaWorld's Sawyer arm: control, sensor readings, observation and start."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.physics.backends import SUBSTEPS, Control
from envs_mjx.physics.scene import SceneParts, SpecEdit
from envs_mjx.robots import sawyer_scene
from envs_mjx.robots.robot import Camera, Channel, Point, Readings, scalar_last

_ACTION_SCALE = 0.01  # m of mocap motion per unit of action
_SETTLE_STEPS = 50
_SETTLE_CTRL = (-1.0, 1.0)  # gripper open
_GRIPPER_SPAN = 0.1  # m between the claws, observed as 1
_HAND_MOCAP = 0  # the arm comes first in MetaWorld's files
# MetaWorld clips what it observes of the hand to these, m.
_HAND_SEEN_LOW = (-0.525, 0.348, -0.0525)
_HAND_SEEN_HIGH = (0.525, 1.025, 0.7)


@dataclass(frozen=True)
class Sawyer:
    """Implements `Robot`. A scene is the name of an MJCF file in MetaWorld's folder."""

    name: ClassVar[str] = "sawyer"
    action_size: ClassVar[int] = 4  # hand motion x, y, z and gripper effort
    frame_size = 18
    frame_positions = (
        *3 * (True,),
        False,
        *3 * (True,),
        *11 * (False,),
    )
    object_qpos: ClassVar[int] = 9  # 7 arm joints and 2 fingers come first
    camera: ClassVar[Camera] = Camera((0.0, 0.775, 0.03), 0.92, 255.0, -67.0)

    @property
    def frame_channels(self) -> list[Channel]:
        """Names, units and bounds of one observation frame."""
        bounds = zip("xyz", _HAND_SEEN_LOW, _HAND_SEEN_HIGH, strict=True)
        hand = [Channel(f"hand {axis}", "m", low, high) for axis, low, high in bounds]
        opening = Channel("gripper opening", f"{_GRIPPER_SPAN} m", 0.0, 1.0)
        place = [Channel(f"object {axis}", "m") for axis in "xyz"]
        turn = [Channel(f"object quaternion {part}", "1", -1.0, 1.0) for part in "xyzw"]
        padding = [Channel(f"padding {i}", "1", 0.0, 0.0) for i in range(7)]
        return [*hand, opening, *place, *turn, *padding]

    @property
    def action_channels(self) -> list[Channel]:
        """Names, units and bounds of an action."""
        unit = f"{_ACTION_SCALE} m per decision"
        motion = [Channel(f"hand motion {axis}", unit, -1.0, 1.0) for axis in "xyz"]
        return [*motion, Channel("gripper effort, 1 closes", "1", -1.0, 1.0)]

    def physics_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile MetaWorld's scene, made thin."""
        return sawyer_scene.build_physics_model(scene, edit, parts)

    def visual_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile MetaWorld's scene with its meshes and textures."""
        return sawyer_scene.build_visual_model(scene, edit, parts)

    def settle(self, model: mujoco.MjModel, hand_start: Point) -> mujoco.MjData:
        """Pull the hand to its start as MetaWorld's reset does."""
        data = mujoco.MjData(model)
        data.mocap_pos[_HAND_MOCAP] = hand_start
        data.ctrl[:] = _SETTLE_CTRL
        mujoco.mj_step(model, data, _SETTLE_STEPS * SUBSTEPS)
        mujoco.mj_forward(model, data)
        return data

    def control(self, physics: PhysicsState, action: jax.Array, low: Point, high: Point) -> Control:
        """Move the mocap body by the first three numbers, close the fingers by the fourth."""
        motion = _ACTION_SCALE * jnp.clip(action[:3], -1.0, 1.0)
        target = physics.mocap_pos[_HAND_MOCAP] + motion
        hand = jnp.clip(target, jnp.array(low), jnp.array(high))
        grip = jnp.clip(action[3], -1.0, 1.0)
        return Control(physics.mocap_pos.at[_HAND_MOCAP].set(hand), jnp.stack([grip, -grip]))

    def read(self, raw: dict[str, jax.Array]) -> Readings:
        """Sort sensor readings, by name."""
        raw = dict(raw)
        return Readings(
            tcp=(raw.pop("right_tip") + raw.pop("left_tip")) / 2.0,
            hand=raw.pop("hand"),
            claws=jnp.stack([raw.pop("right_claw"), raw.pop("left_claw")]),
            pads=jnp.stack([raw.pop("right_pad"), raw.pop("left_pad")]),
            object_pos=raw.pop("object_pos"),
            object_quat=scalar_last(raw.pop("object_quat")),
            extra=raw,
        )

    def frame(self, readings: Readings) -> jax.Array:
        """Return [18]: hand 3, gripper opening 1, object position 3 and quaternion 4, zeros 7."""
        hand = jnp.clip(readings.hand, jnp.array(_HAND_SEEN_LOW), jnp.array(_HAND_SEEN_HIGH))
        span = jnp.linalg.norm(readings.claws[0] - readings.claws[1])
        opening = jnp.clip(span / _GRIPPER_SPAN, 0.0, 1.0)
        frame = jnp.concatenate([hand, opening[None], readings.object_pos, readings.object_quat])
        return jnp.pad(frame, (0, self.frame_size - frame.shape[0]))


SAWYER = Sawyer()
