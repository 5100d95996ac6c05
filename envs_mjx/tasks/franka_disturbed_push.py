"""The Franka's Disturbed Push: drag a cube to a goal while a person waves a flower in the way."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.errors import EnvError
from envs_mjx.experts import franka_push as scripts
from envs_mjx.physics.scene import add_frame_sensor
from envs_mjx.robots.franka import Franka
from envs_mjx.robots.robot import Robot
from envs_mjx.tasks.franka_push import FrankaPush, nearest_part
from envs_mjx.tasks.task import Episode, Readings

_STEM_LENGTH, _STEM_RADIUS, _BLOOM_RADIUS = 0.15, 0.003, 0.015  # m, as in the paper's clip
_BLOOM_HEIGHT = 0.04  # m
_STEM_WAY = (0.0, 0.866, 0.5)  # from the bloom to the person, on the robot's left
_STEM_POINTS = 11  # 1.5 cm apart
_CLEARANCE = 0.05  # m between hand and bloom, on the expert's way past
_LEAD = 6.0  # steps ahead at which the scripts look at the flower
_QPOS, _QVEL = slice(16, 18), slice(15, 17)  # of the flower's slides: they follow the cube's joint
_STEP = 0.02  # s


@dataclass(frozen=True)
class FrankaDisturbedPush(FrankaPush):
    """Every number that shapes difficulty is a field."""

    goal_x: tuple[float, float] = (0.63, 0.65)
    flower_low: tuple[float, float] = (0.48, -0.06)
    """Where the bloom may be, m."""
    flower_high: tuple[float, float] = (0.54, 0.14)
    flower_rate: float = 2.0
    """How fast it swings about the middle of that, rad/s."""
    flower_speed: float = 0.10
    """Root mean square of each component of its velocity, m/s, but for the bounds."""
    flower_damping: float = 0.3
    """Damping ratio: how soon a swing is forgotten."""

    name: ClassVar[str] = "franka_disturbed_push"
    robot: ClassVar[Robot] = Franka(sees=(("object_quat", 4), ("flower", 2)))
    danger_margin: ClassVar[float] = 0.03
    danger_lead: ClassVar[float] = 0.0
    safe_margin: ClassVar[float] = 0.05
    # Means over 1,000 episodes each on the native backend: standard errors 1.5 and 2.5.
    random_return: ClassVar[float] = 98.0
    expert_return: ClassVar[float] = 1635.0

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        super().__post_init__()
        pairs = zip(self.flower_low, self.flower_high, strict=True)
        if not all(low <= high for low, high in pairs):
            raise EnvError(
                f"flower_low {self.flower_low} must not be larger than flower_high "
                f"{self.flower_high}"
            )
        for name in ("flower_rate", "flower_speed", "flower_damping"):
            if not getattr(self, name) >= 0:
                raise EnvError(f"{name} is {getattr(self, name)}: it must be at least 0")

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add the cube, and the flower on two slides. It is sensed and stops nothing."""
        super().edit_physics(spec)
        flower = _add_flower(spec)
        flower.mass, flower.inertia, flower.explicitinertial = 0.01, (1e-5,) * 3, True
        flower.add_site(name="flower", pos=(0.0, 0.0, _BLOOM_HEIGHT))
        add_frame_sensor(spec, "flower", "flower", mujoco.mjtSensor.mjSENS_FRAMEPOS)

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add the cube, the flower and a cross of tape at the middle of the goals."""
        super().edit_visuals(spec)
        flower = _add_flower(spec)
        bloom = jnp.array([0.0, 0.0, _BLOOM_HEIGHT])
        shape = {"contype": 0, "conaffinity": 0}
        flower.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[*bloom.tolist(), *(bloom + _STEM_LENGTH * jnp.array(_STEM_WAY)).tolist()],
            size=(_STEM_RADIUS, 0.0, 0.0),
            rgba=(0.15, 0.55, 0.15, 1.0),
            **shape,
        )
        flower.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE,
            pos=bloom.tolist(),
            size=(_BLOOM_RADIUS, 0.0, 0.0),
            rgba=(0.95, 0.45, 0.70, 1.0),
            **shape,
        )
        middle = sum(self.goal_x) / 2.0, sum(self.goal_y) / 2.0, 0.0005
        for turn in (0.924, 0.383), (0.924, -0.383):
            spec.worldbody.add_geom(
                type=mujoco.mjtGeom.mjGEOM_BOX,
                pos=middle,
                quat=(turn[0], 0.0, 0.0, turn[1]),
                size=(0.04, 0.005, 0.0005),
                rgba=(0.95, 0.95, 0.95, 1.0),
                **shape,
            )

    def enter(
        self, physics: PhysicsState, key: jax.Array
    ) -> tuple[PhysicsState, dict[str, jax.Array]]:
        """Put the bloom anywhere in its area, at rest."""
        low, high = jnp.array(self.flower_low), jnp.array(self.flower_high)
        place = low + jax.random.uniform(key, (2,)) * (high - low)
        physics = physics.replace(qpos=physics.qpos.at[_QPOS].set(place))
        return physics, {"flower": jnp.append(place, _BLOOM_HEIGHT)}

    def disturb(self, physics: PhysicsState, key: jax.Array) -> PhysicsState:
        """Swing the bloom: dv = -(w^2 (p - middle) + 2 z w v) dt + noise, within its area.

        The noise is such that each component of v has a root mean square of `flower_speed`.
        """
        low, high = jnp.array(self.flower_low), jnp.array(self.flower_high)
        place, speed = physics.qpos[_QPOS], physics.qvel[_QVEL]
        rate, damping = self.flower_rate, self.flower_damping
        pull = rate**2 * (place - (low + high) / 2.0) + 2.0 * damping * rate * speed
        kick = self.flower_speed * (4.0 * damping * rate * _STEP) ** 0.5
        speed = speed - _STEP * pull + kick * jax.random.normal(key, (2,))
        speed = jnp.clip(speed, (low - place) / _STEP, (high - place) / _STEP)
        return physics.replace(qvel=physics.qvel.at[_QVEL].set(speed))

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return the distance from cube, fingers or hand to the flower, m.

        The stem counts as `_STEM_POINTS` beads of its thickness.
        """
        bloom, point = readings.extra["flower"], jnp.zeros(3)
        along = jnp.linspace(0.0, _STEM_LENGTH, _STEM_POINTS)[:, None]
        beads = bloom + along * jnp.array(_STEM_WAY)  # [P, 3] m
        stem = jax.vmap(nearest_part, in_axes=(None, 0, None))(readings, beads, point)
        return jnp.minimum(jnp.min(stem) - _STEM_RADIUS, stem[0] - _BLOOM_RADIUS)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the scripted action, [4]."""
        return scripts.push_expert(obs, self._flower(obs), _CLEARANCE)

    def careless_traits(self, key: jax.Array) -> scripts.CarelessTraits:
        """Draw one episode's careless operator."""
        return scripts.careless_traits(key)

    def careless(self, obs: jax.Array, traits: scripts.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return scripts.careless_push(obs, traits, self._flower(obs))

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that takes hand and cube away from the flower, [4]."""
        return scripts.push_recovery(obs, self._flower(obs))

    def _flower(self, obs: jax.Array) -> jax.Array:
        """Return x_low, x_high, y_low, y_high of the flower as it soon will be, [4] m."""
        size = self.robot.frame_size
        now, before = obs[size - 2 : size], obs[2 * size - 2 : 2 * size]
        soon = now + _LEAD * (now - before)
        radius = _BLOOM_RADIUS
        reach = jnp.array([-radius, radius, -radius, _STEM_LENGTH])
        return jnp.stack([soon[0], soon[0], soon[1], soon[1]]) + reach


def _add_flower(spec: mujoco.MjSpec) -> mujoco.MjsBody:
    flower = spec.worldbody.add_body(name="flower")
    for name, axis in (("flower_x", (1.0, 0.0, 0.0)), ("flower_y", (0.0, 1.0, 0.0))):
        flower.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis)
    return flower
