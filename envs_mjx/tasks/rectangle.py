"""The rectangle in which the bounded tasks keep their object."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.errors import EnvError, closest
from envs_mjx.geometry import rectangle_margin
from envs_mjx.tasks.placement import TableTask
from envs_mjx.tasks.task import Episode, Readings


class Bounds(NamedTuple):
    """The rectangle that the object's centre must stay in, m."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float


def checked_bounds(
    bounds: str | tuple[float, float, float, float], named: Mapping[str, Bounds]
) -> Bounds:
    """Return bounds in metres, looked up in `named` if given by name.

    Raises:
      EnvError: unknown name, not four numbers, or nothing inside them.
    """
    if isinstance(bounds, str):
        if bounds not in named:
            raise EnvError(f"unknown bounds {bounds!r}: {closest(bounds, named)}")
        return named[bounds]
    if len(bounds) != 4:
        raise EnvError(f"bounds {tuple(bounds)} must be x_low, x_high, y_low, y_high in m")
    area = Bounds(*bounds)
    if not (area.x_low < area.x_high and area.y_low < area.y_high):
        raise EnvError(
            f"bounds {tuple(area)} enclose nothing; give x_low < x_high and y_low < y_high"
        )
    return area


def edge_margin(position: jax.Array, area: Bounds) -> jax.Array:
    """Return how far inside `area` the point `position` [3] is, m; negative outside."""
    lower = jnp.array([area.x_low, area.y_low])
    upper = jnp.array([area.x_high, area.y_high])
    return rectangle_margin(position[:2], lower, upper)


def outline(spec: mujoco.MjSpec, area: Bounds) -> None:
    """Outline `area` on the table with four thin red strips that nothing touches."""
    middle = ((area.x_low + area.x_high) / 2, (area.y_low + area.y_high) / 2)
    half = ((area.x_high - area.x_low) / 2, (area.y_high - area.y_low) / 2)
    strips = (
        (area.x_low, middle[1], 0.003, half[1]),
        (area.x_high, middle[1], 0.003, half[1]),
        (middle[0], area.y_low, half[0], 0.003),
        (middle[0], area.y_high, half[0], 0.003),
    )
    for x, y, half_x, half_y in strips:
        spec.worldbody.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX,
            pos=(x, y, 0.001),
            size=(half_x, half_y, 0.001),
            rgba=(0.9, 0.1, 0.1, 1.0),
            contype=0,
            conaffinity=0,
        )


@dataclass(frozen=True)
class BoundedTask(TableTask):
    """A task that fails where the object's centre leaves a rectangle."""

    bounds: str | tuple[float, float, float, float] = "default"
    """Name in `named_bounds`, or x_low, x_high, y_low, y_high in m."""

    named_bounds: ClassVar[Mapping[str, Bounds]]

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        super().__post_init__()
        checked_bounds(self.bounds, self.named_bounds)

    @property
    def rectangle(self) -> Bounds:
        """The bounds in metres, looked up if they were given by name."""
        return checked_bounds(self.bounds, self.named_bounds)

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """Add nothing: the boundary has no body."""

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Outline the rectangle on the table with four thin red strips."""
        outline(spec, self.rectangle)

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return how far inside the rectangle the object's centre is, m; negative outside."""
        return edge_margin(readings.object_pos, self.rectangle)
