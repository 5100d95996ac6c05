"""Scripted controllers for Fragile Push Wall: pure functions from one observation to one action.

An action's first three numbers move the hand by up to 1 cm each per step, the fourth closes (+)
or opens (-) the gripper. `wall` is x_low, x_high, y_low, y_high of the wall, [4] m. All of them go
around the end of the wall at x_low.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx import experts
from envs_mjx.shaping import norm

_PUCK_RADIUS = 0.02  # m
_CLEARANCE = 0.045  # m, how far from the wall's end the expert takes the puck
_OVERSHOOT = 0.03  # m, targets lie that much further, so that the hand does not slow down
_SAFE_DISTANCE = 0.10  # m from the wall, where recovery takes the puck
_HOVER = 0.09  # m above the puck, enough for the finger tips to pass over it
_GRASP_HEIGHT = 0.03  # m above the puck, where the fingers enclose it


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    hand: experts.CarelessTraits  # how badly the puck is held; its target is not used
    clearance: jax.Array  # [] m, how far from the wall's end the puck is taken; may be negative
    straight: jax.Array  # [] bool, heads for the goal as if there were no wall


def wall_expert(obs: jax.Array, wall: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck round the wall: sideways, past it, to the goal."""
    return experts.push_expert(obs.at[36:38].set(_way_point(obs, wall, jnp.float32(_CLEARANCE))))


def careless_wall_traits(key: jax.Array) -> CarelessTraits:
    """Draw a careless operator: most cut the corner too close, some see no wall."""
    keys = jax.random.split(key, 3)
    return CarelessTraits(
        hand=experts.careless_push_traits(keys[0], jnp.array([0.0, 0.0, 0.0, 0.0])),
        clearance=jax.random.uniform(keys[1], minval=-0.06, maxval=0.05),
        straight=jax.random.bernoulli(keys[2], 0.3),
    )


def careless_wall(obs: jax.Array, traits: CarelessTraits, wall: jax.Array) -> jax.Array:
    """Return the action [4] of the operator `traits` at `obs` [39]."""
    around = _way_point(obs, wall, traits.clearance)
    target = jnp.where(traits.straight, obs[36:38], around)
    return experts.careless_push(obs, traits.hand._replace(target=target))


def wall_recovery(obs: jax.Array, wall: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck straight away from the wall.

    A hand that is low and beside the puck goes away from the wall at full speed with the fingers
    closed: that brakes a shove, and drags a caged puck along. A low hand further off rises just
    above the puck's height, and a raised one comes down over the puck.

    Args:
      obs: [39].
      wall: [4] m.
    """
    hand, puck = obs[:3], obs[4:7]
    nearest = jnp.clip(puck[:2], wall[0::2], wall[1::2])
    away = puck[:2] - nearest
    away = away / jnp.maximum(norm(away), 1e-3)
    low = hand[2] - puck[2] < 0.07
    beside = norm(hand[:2] - puck[:2]) < 0.07
    full_speed = away / jnp.maximum(jnp.max(jnp.abs(away)), 1e-3)
    drag = jnp.concatenate([full_speed, jnp.array([0.0, experts.GRIP])])
    rise = jnp.array([0.0, 0.0, 1.0, -1.0])
    fetch = experts.push_expert(obs.at[36:38].set(nearest + _SAFE_DISTANCE * away))
    return jnp.where(low & beside, drag, jnp.where(low, rise, fetch))


def _way_point(obs: jax.Array, wall: jax.Array, clearance: jax.Array) -> jax.Array:
    """Return where the puck should go next, [2] m: beside the wall, past it, or the goal."""
    puck = obs[4:6]
    side = wall[0] - _PUCK_RADIUS - clearance
    aside = puck[0] < side + 0.01
    past = puck[1] > wall[3] + _PUCK_RADIUS
    sideways = jnp.stack([side - _OVERSHOOT, jnp.minimum(puck[1], wall[2] - 2.0 * _PUCK_RADIUS)])
    forward = jnp.stack([side, wall[3] + _PUCK_RADIUS + _OVERSHOOT])
    return jnp.where(past, obs[36:38], jnp.where(aside, forward, sideways))
