"""A robot of your own in one file, and a task for it: a three-axis gantry.

The page is docs/how-to/add-robot.md.

farl run --task examples.gantry:GantryPush --preset quick
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx import BoundedPush, Camera, Control, PhysicsState, Readings, Robot, SceneParts
from envs_mjx.physics.scene import SpecEdit, add_frame_sensor

STEP = 0.01  # m of motion per unit of action
PIN = 0.01  # m, radius of the pin that pushes


@dataclass(frozen=True)
class Gantry:
    """Three slides with an upright pin; a constraint pulls it to the mocap body."""

    name: ClassVar[str] = "gantry"
    action_size: ClassVar[int] = 3  # motion along x, y and z
    frame_size = 6
    frame_positions = (True,) * 6
    object_qpos: ClassVar[int] = 3  # after the three slides
    camera: ClassVar[Camera] = Camera((0.0, 0.75, 0.03), 0.9, 255.0, -60.0)

    def physics_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Compile a table, the pin and the task's parts, with one named sensor a reading."""
        spec = mujoco.MjSpec()
        spec.worldbody.add_geom(
            name="table", type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1.0, 1.5, 0.1)
        )
        pin = spec.worldbody.add_body(name="pin", gravcomp=1.0)
        for name, axis in zip("xyz", ((1, 0, 0), (0, 1, 0), (0, 0, 1)), strict=True):
            joint = pin.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
            joint.damping[0] = 20.0
        pin.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=(0.0, 0.0, PIN, 0.0, 0.0, 0.12),
            size=(PIN, 0.0, 0.0),
            mass=0.5,
        )
        spec.worldbody.add_body(name="target", mocap=True)
        spec.add_equality(
            type=mujoco.mjtEq.mjEQ_CONNECT,
            objtype=mujoco.mjtObj.mjOBJ_BODY,
            name1="target",
            name2="pin",
        )
        edit(spec)
        for name, body in {"hand": "pin", "object_pos": parts.object_body}.items():
            spec.body(body).add_site(name=name)
            add_frame_sensor(spec, name, name, mujoco.mjtSensor.mjSENS_FRAMEPOS)
        add_frame_sensor(spec, "object_quat", "object_pos", mujoco.mjtSensor.mjSENS_FRAMEQUAT)
        spec.option.timestep = 0.0025
        return spec.compile()

    def visual_model(self, scene: str, edit: SpecEdit, parts: SceneParts) -> mujoco.MjModel:
        """Return the physics model: there are no meshes."""
        return self.physics_model(scene, edit, parts)

    def settle(self, model: mujoco.MjModel, hand_start: tuple) -> mujoco.MjData:
        """Put the pin at its start."""
        data = mujoco.MjData(model)
        data.qpos[:3] = data.mocap_pos[0] = hand_start
        mujoco.mj_step(model, data, 100)
        mujoco.mj_forward(model, data)
        return data

    def control(self, physics: PhysicsState, action: jax.Array, low: tuple, high: tuple) -> Control:
        """Move the mocap body."""
        target = physics.mocap_pos[0] + STEP * jnp.clip(action, -1.0, 1.0)
        target = jnp.clip(target, jnp.array(low), jnp.array(high))
        return Control(physics.mocap_pos.at[0].set(target), jnp.zeros(0))

    def read(self, raw: dict[str, jax.Array]) -> Readings:
        """Sort sensor readings; the pin replaces fingers."""
        raw = dict(raw)
        pin = raw.pop("hand")
        twice = jnp.stack([pin, pin])
        place, quat = raw.pop("object_pos"), jnp.roll(raw.pop("object_quat"), -1)
        return Readings(pin, pin, twice, twice, place, quat, raw)

    def frame(self, readings: Readings) -> jax.Array:
        """Return pin 3, object 3."""
        return jnp.concatenate([readings.tcp, readings.object_pos])


@dataclass(frozen=True)
class GantryPush(BoundedPush):
    """Bounded Push by a gantry: placement, success and failure are unchanged."""

    name: ClassVar[str] = "gantry_push"
    robot: ClassVar[Robot] = Gantry()
    scene_parts: ClassVar[SceneParts] = SceneParts(object_body="puck", object_height=0.02)
    hand_start: ClassVar[tuple[float, float, float]] = (0.0, 0.5, 0.1)
    hand_low: ClassVar[tuple[float, float, float]] = (-0.3, 0.4, 0.005)
    hand_high: ClassVar[tuple[float, float, float]] = (0.3, 1.0, 0.2)

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add the puck, a box as in MetaWorld's thin scene."""
        puck = spec.worldbody.add_body(name="puck", pos=(0.0, 0.65, 0.02))
        puck.add_freejoint()
        puck.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=(0.02, 0.02, 0.02), mass=0.1)

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add the puck and the boundary."""
        self.edit_physics(spec)
        super().edit_visuals(spec)

    def reward(self, readings: Readings, action: jax.Array, episode) -> jax.Array:
        """Return 10 x the completed share of the way, in [0, 10]."""
        left = jnp.linalg.norm((readings.object_pos - episode.goal)[:2])
        whole = jnp.linalg.norm((episode.object_start - episode.goal)[:2])
        return 10.0 * jnp.clip(1.0 - left / whole, 0.0, 1.0)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the action [3] that goes behind the puck and pushes it to the goal."""
        return self._push(obs, obs[-3:-1])

    def careless(self, obs: jax.Array, traits) -> jax.Array:
        """Push it somewhere else."""
        return self._push(obs, traits.target)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Push it to the middle of the rectangle."""
        area = jnp.array(self.rectangle)
        return self._push(obs, (area[0::2] + area[1::2]) / 2.0)

    def _push(self, obs: jax.Array, target: jax.Array) -> jax.Array:
        pin, puck = obs[:3], obs[3:6]
        way = (target - puck[:2]) / jnp.maximum(jnp.linalg.norm(target - puck[:2]), 1e-3)
        ahead = jnp.dot(puck[:2] - pin[:2], way)
        aside = jnp.linalg.norm(puck[:2] - pin[:2] - ahead * way)
        behind = (ahead > 0.0) & (aside < 0.01)
        low = pin[2] < 0.03
        start = jnp.append(puck[:2] - 0.05 * way, jnp.where(behind, 0.01, 0.08))
        clear = (pin[2] > 0.06) | behind
        start = jnp.where(clear, start, jnp.append(pin[:2], 0.08))
        point = jnp.where(behind & low, jnp.append(puck[:2], 0.01), start)
        return 20.0 * (point - pin)
