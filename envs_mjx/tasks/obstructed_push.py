"""Obstructed Push: slide the puck to the goal while the arm keeps clear of a standing vase."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.errors import EnvError
from envs_mjx.experts import vase
from envs_mjx.geometry import segment_distance
from envs_mjx.tasks.push import PushTask
from envs_mjx.tasks.task import Episode, Readings

Segment = tuple[jax.Array, jax.Array]


class _Mark(NamedTuple):
    """A point fixed to a link of the arm."""

    body: str
    position: tuple[float, float, float]  # m, in the link's frame


# Ends of the capsules along the arm, and below their radii: the smallest that hold the vertices of
# MetaWorld's meshes, except for screw heads.
_MARKS = {
    "arm_forearm": _Mark("right_l4", (0.0, 0.0, 0.05)),
    "arm_elbow": _Mark("right_l5", (0.0, 0.0, 0.0)),
    "arm_wrist": _Mark("right_l5", (0.0, 0.0, 0.105)),
    "arm_gripper_right": _Mark("right_hand", (0.0, -0.02, 0.055)),
    "arm_gripper_left": _Mark("right_hand", (0.0, 0.02, 0.055)),
}
_RADII = (0.05, 0.05, 0.045, 0.035, 0.015, 0.015)  # m, in the order of `arm_segments`


@dataclass(frozen=True)
class ObstructedPush(PushTask):
    """MetaWorld's push-v3 beside a vase. Every number that shapes difficulty is a field."""

    episode_limit: int = 80
    """Steps; enough for the paper's films."""
    vase_base: tuple[float, float] = (0.38, 0.68)
    """Position of the vase's axis on the table, m (films)."""
    vase_radius: float = 0.16
    """m (films)."""
    vase_height: float = 0.45
    """m (films); the top is a half sphere."""

    name: ClassVar[str] = "obstructed_push"
    danger_margin: ClassVar[float] = 0.05
    danger_lead: ClassVar[float] = 0.0
    safe_margin: ClassVar[float] = 0.08
    # Means over 1,000 episodes each on the native backend: standard errors 0.05 and 1.2.
    random_return: ClassVar[float] = 4.4
    expert_return: ClassVar[float] = 381.6

    def __post_init__(self) -> None:
        """Refuse an impossible vase."""
        super().__post_init__()
        if not self.vase_radius > 0:
            raise EnvError(f"vase_radius is {self.vase_radius}: it must be above 0")
        if not self.vase_height > self.vase_radius:
            raise EnvError(
                f"vase_height is {self.vase_height}: the round top alone takes vase_radius "
                f"{self.vase_radius}, and it must be higher than that"
            )

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add sensors of the arm's links. The vase has no body and touches nothing."""
        for name, mark in _MARKS.items():
            spec.body(mark.body).add_site(name=name, pos=mark.position)
            spec.add_sensor(
                name=name,
                type=mujoco.mjtSensor.mjSENS_FRAMEPOS,
                objtype=mujoco.mjtObj.mjOBJ_SITE,
                objname=name,
            )

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Add the transparent vase."""
        axis_top = self.vase_height - self.vase_radius
        shape = {"rgba": (0.55, 0.75, 0.95, 0.6), "contype": 0, "conaffinity": 0}
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_CYLINDER,
            pos=(*self.vase_base, axis_top / 2),
            size=(self.vase_radius, axis_top / 2, 0.0),
            **shape,
        )
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_ELLIPSOID,
            pos=(*self.vase_base, axis_top),
            size=(self.vase_radius,) * 3,
            **shape,
        )

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return the least distance between the arm's capsules and the vase, m."""
        low = jnp.array([*self.vase_base, 0.0])
        high = low.at[2].set(self.vase_height - self.vase_radius)
        gaps = [
            segment_distance(segment, (low, high)) - radius
            for segment, radius in zip(arm_segments(readings), _RADII, strict=True)
        ]
        return jnp.min(jnp.stack(gaps)) - self.vase_radius

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the scripted action, [4]."""
        return vase.vase_expert(obs)

    def careless_traits(self, key: jax.Array) -> vase.CarelessTraits:
        """Draw one episode's careless operator."""
        return vase.careless_vase_traits(key)

    def careless(self, obs: jax.Array, traits: vase.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return vase.careless_vase(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that moves the arm away from the vase, [4]."""
        return vase.vase_recovery(obs, jnp.array(self.vase_base))


def arm_segments(readings: Readings) -> tuple[Segment, ...]:
    """Return the axes of the arm's capsules: forearm, wrist, hand, gripper and two fingers.

    Each is two ends [3] m. The links nearer to the shoulder stay on the arm's far side.
    """
    at = readings.extra
    right, left = at["arm_gripper_right"], at["arm_gripper_left"]
    down = readings.tcp - readings.hand  # m, half a finger
    return (
        (at["arm_forearm"], at["arm_elbow"]),
        (at["arm_elbow"], at["arm_wrist"]),
        (at["arm_wrist"], (right + left) / 2.0),
        (right, left),
        *((claw - down, claw + down) for claw in readings.claws),
    )
