"""Bounded Push: slide the puck to the goal without letting it leave a rectangle on the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp

from envs_mjx.experts import push
from envs_mjx.tasks.push import PushTask
from envs_mjx.tasks.rectangle import BoundedTask, Bounds

# "videos" is the rectangle in the paper's films. "default" is narrower, so that fine-tuning without
# a gate fails often enough: in 0.3 to 10 % of episodes over 1e6 steps (three seeds).
BOUNDS = {
    "default": Bounds(-0.15, 0.15, 0.58, 0.92),
    "videos": Bounds(-0.22, 0.22, 0.53, 0.97),
}


@dataclass(frozen=True)
class BoundedPush(BoundedTask, PushTask):
    """MetaWorld's push-v3 with a boundary. Every number that shapes difficulty is a field."""

    name: ClassVar[str] = "bounded_push"
    named_bounds: ClassVar[Mapping[str, Bounds]] = BOUNDS
    danger_margin: ClassVar[float] = 0.06
    danger_lead: ClassVar[float] = 10.0
    safe_margin: ClassVar[float] = 0.09
    # Means over 1,200 episodes each on the native backend: standard errors 0.6 and 1.0.
    random_return: ClassVar[float] = 15.0
    expert_return: ClassVar[float] = 2080.0

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return MetaWorld's scripted action, [4]."""
        return push.push_expert(obs)

    def careless_traits(self, key: jax.Array) -> push.CarelessTraits:
        """Draw one episode's careless operator."""
        return push.careless_push_traits(key, jnp.array(self.rectangle))

    def careless(self, obs: jax.Array, traits: push.CarelessTraits) -> jax.Array:
        """Return a careless operator's action, [4]."""
        return push.careless_push(obs, traits)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the action that takes the puck out of danger, [4]."""
        return push.push_recovery(obs, jnp.array(self.rectangle))
