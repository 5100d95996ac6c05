"""Scripted controllers for Fragile Push Wall: from one observation to one action.

An action's first three numbers move the hand by up to 1 cm each per step, the fourth closes (+)
or opens (-) the gripper. `wall` is x_low, x_high, y_low, y_high, [4] m. All controllers pass
its end at x_low.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.experts import push
from envs_mjx.geometry import norm

_PUCK_RADIUS = 0.02  # m
_CLEARANCE = 0.06  # m between the expert's puck and the wall's end
_OVERSHOOT = 0.03  # m, added to targets so that the hand does not slow down
_SAFE_DISTANCE = 0.16  # m from the wall, the target of recovery


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    hand: push.CarelessTraits  # how badly the puck is held; its target is not used
    clearance: jax.Array  # [] m, how far from the wall's end the puck is taken; may be negative
    straight: jax.Array  # [] bool, heads straight for the goal


def wall_expert(obs: jax.Array, wall: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck round the wall: sideways, past it, to the goal."""
    return push.carry(obs, _way_point(obs, wall, jnp.float32(_CLEARANCE)))


def careless_wall_traits(key: jax.Array) -> CarelessTraits:
    """Draw a careless operator: most cut the corner too close, some ignore the wall."""
    keys = jax.random.split(key, 5)
    hand = push.careless_push_traits(keys[0], jnp.zeros(4))._replace(
        gain=jax.random.uniform(keys[1], minval=4.0, maxval=10.0),
        shove=jax.random.bernoulli(keys[2], 0.55),
    )
    return CarelessTraits(
        hand=hand,
        clearance=jax.random.uniform(keys[3], minval=-0.08, maxval=0.03),
        straight=jax.random.bernoulli(keys[4], 0.2),
    )


def careless_wall(obs: jax.Array, traits: CarelessTraits, wall: jax.Array) -> jax.Array:
    """Return the action [4] of the operator `traits` at `obs` [39]."""
    around = _way_point(obs, wall, traits.clearance)
    target = jnp.where(traits.straight, obs[36:38], around)
    return push.careless_push(obs, traits.hand._replace(target=target))


def wall_recovery(obs: jax.Array, wall: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck straight away from the wall.

    Args:
      obs: [39].
      wall: [4] m.
    """
    puck = obs[4:7]
    nearest = jnp.clip(puck[:2], wall[0::2], wall[1::2])
    away = puck[:2] - nearest
    away = away / jnp.maximum(norm(away), 1e-3)
    return push.retreat(obs, away, nearest + _SAFE_DISTANCE * away)


def _way_point(obs: jax.Array, wall: jax.Array, clearance: jax.Array) -> jax.Array:
    """Return where the puck should go next, [2] m: beside the wall, past it, or the goal."""
    puck = obs[4:6]
    side = wall[0] - _PUCK_RADIUS - clearance
    aside = puck[0] < side + 0.015
    past = puck[1] > wall[3] + _PUCK_RADIUS
    sideways = jnp.stack([side - _OVERSHOOT, puck[1]])
    forward = jnp.stack([side, wall[3] + _PUCK_RADIUS + _OVERSHOOT])
    return jnp.where(past, obs[36:38], jnp.where(aside, forward, sideways))
