"""Bounded Push: slide the puck to the goal without letting it leave a rectangle on the table."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx import experts
from envs_mjx.push import PushTask
from envs_mjx.rectangle import Bounds, checked_bounds, edge_margin, outline
from envs_mjx.task import Episode, Readings

# "default": unguarded fine-tuning of a weak policy fails in 13-17 % of its episodes (6 % with
# "videos", which is what the films on the paper's page show).
BOUNDS = {
    "default": Bounds(-0.15, 0.15, 0.58, 0.92),
    "videos": Bounds(-0.22, 0.22, 0.53, 0.97),
}


@dataclass(frozen=True)
class BoundedPush(PushTask):
    """MetaWorld's push-v3 with a boundary. Every number that shapes difficulty is a field."""

    bounds: str | tuple[float, float, float, float] = "default"
    """Name in `BOUNDS`, or x_low, x_high, y_low, y_high in m."""

    name: ClassVar[str] = "bounded_push"
    danger_margin: ClassVar[float] = 0.06
    safe_margin: ClassVar[float] = 0.09
    # Means over 1,200 episodes each on the native backend: standard errors 0.6 and 1.0.
    random_return: ClassVar[float] = 15.0
    expert_return: ClassVar[float] = 2080.0

    def __post_init__(self) -> None:
        """Refuse settings that no episode could meet."""
        super().__post_init__()
        checked_bounds(self.bounds, BOUNDS)

    @property
    def rectangle(self) -> Bounds:
        """The bounds in metres, looked up if they were given by name."""
        return checked_bounds(self.bounds, BOUNDS)

    def edit_physics(self, spec: mujoco.MjSpec) -> None:
        """The thin scene is complete as it is: the boundary is no body."""

    def edit_visuals(self, spec: mujoco.MjSpec) -> None:
        """Outline the rectangle on the table with four thin red strips."""
        outline(spec, self.rectangle)

    def failure_margin(self, readings: Readings, episode: Episode) -> jax.Array:
        """Return how far inside the rectangle the puck's centre is, m; negative outside."""
        return edge_margin(readings.object_pos, self.rectangle)

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return MetaWorld's scripted action, [4]."""
        return experts.push_expert(obs)

    def careless_traits(self, key: jax.Array) -> experts.CarelessTraits:
        """Draw one episode's careless operator."""
        return experts.careless_push_traits(key, jnp.array(self.rectangle))

    def careless(self, obs: jax.Array, traits: experts.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return experts.careless_push(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that brings the puck out of danger, [4]."""
        return experts.push_recovery(obs, jnp.array(self.rectangle))
