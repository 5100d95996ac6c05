"""Scripted controllers of the Franka's two push tasks: from one observation to one action.

An action's first three numbers move the finger tips by up to 1 cm each per step; the fourth asks
for a width of the fingers, from 1 (closed) to -1 (8 cm). An observation begins with finger tips 3,
width 1 (1 is open) and cube 3, and ends with the goal 3. All of them pass an obstacle, a wall or a
flower, on its right, the side of smaller y. It is x_low, x_high, y_low, y_high, [4] m.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.geometry import norm

HAND_X, HAND_Y = 0.032, 0.102  # m, half the size of the hand, which is above the fingers
_CUBE_HALF = 0.025  # m
_GAIN = 40.0  # action per metre of error
_TRAVEL_HEIGHT, _GRASP_HEIGHT = 0.085, 0.025  # m, of the finger tips
_OPEN, _CLOSED = -1.0, 0.6  # asked of the fingers; 0.6 presses on a cube of 5 cm
_OVERSHOOT = 0.03  # m, targets lie that much further, so that the hand does not slow down
_SAFE_DISTANCE = 0.07  # m between hand and obstacle, where recovery takes the cube
_TOO_NEAR = 0.02  # m between them, at which a hand without the cube gets away first


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    clearance: jax.Array  # [] m between hand and obstacle on its way past; may be negative
    straight: jax.Array  # [] bool, heads for the goal as if nothing were in the way
    speed: jax.Array  # [] of the hand with the cube, in (0, 1]
    squeeze: jax.Array  # [] asked of the fingers; open ones lose the cube
    offset: jax.Array  # [2] m, where beside the cube the fingers come down


def careless_traits(key: jax.Array) -> CarelessTraits:
    """Draw a careless operator: most pass too close, some see no obstacle."""
    keys = jax.random.split(key, 5)
    return CarelessTraits(
        clearance=jax.random.uniform(keys[0], minval=-0.09, maxval=0.05),
        straight=jax.random.bernoulli(keys[1], 0.2),
        speed=jax.random.uniform(keys[2], minval=0.3, maxval=1.0),
        squeeze=jax.random.uniform(keys[3], minval=0.0, maxval=0.8),
        offset=jax.random.uniform(keys[4], (2,), minval=-0.008, maxval=0.008),
    )


def push_expert(obs: jax.Array, obstacle: jax.Array, clearance: float) -> jax.Array:
    """Return the action [4] that takes the cube past `obstacle` to the goal.

    `clearance` is kept between hand and obstacle, m.
    """
    return carry(obs, way_point(obs, obstacle, jnp.float32(clearance)))


def careless_push(obs: jax.Array, traits: CarelessTraits, obstacle: jax.Array) -> jax.Array:
    """Return the action [4] of the operator `traits`."""
    around = way_point(obs, obstacle, traits.clearance)
    target = jnp.where(traits.straight, obs[-3:-1], around)
    return carry(obs, target, traits.speed, traits.squeeze, traits.offset)


def push_recovery(obs: jax.Array, obstacle: jax.Array) -> jax.Array:
    """Return the action [4] that takes hand and cube straight away from `obstacle`.

    A held cube comes along. Without one the hand first gets away, then fetches it.
    """
    hand = obs[:2]
    inner = jnp.array([HAND_X, HAND_Y])
    nearest = jnp.clip(hand, obstacle[0::2] - inner, obstacle[1::2] + inner)
    away = hand - nearest
    apart = norm(away)
    middle = (obstacle[0::2] + obstacle[1::2]) / 2.0
    away = jnp.where(apart > 1e-3, away / jnp.maximum(apart, 1e-3), _outward(hand - middle))
    fast = away / jnp.maximum(jnp.max(jnp.abs(away)), 1e-3)  # one axis at 1
    held = is_held(obs)
    closing = jnp.where(held, _CLOSED, _OPEN)
    flee = jnp.concatenate([fast, jnp.stack([0.0 * closing, closing])])
    fetch = carry(obs, nearest + _SAFE_DISTANCE * away)
    return jnp.where(held | (apart < _TOO_NEAR), flee, fetch)


def _outward(offset: jax.Array) -> jax.Array:
    """Return the unit vector [2] of the axis along which `offset` [2] is larger."""
    along_x = jnp.abs(offset[0]) > jnp.abs(offset[1])
    return jnp.sign(offset) * jnp.where(along_x, jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))


def way_point(obs: jax.Array, obstacle: jax.Array, clearance: jax.Array) -> jax.Array:
    """Return where the cube should go next, [2] m: aside, past the obstacle, or the goal."""
    cube = obs[4:6]
    before, after = obstacle[0] - HAND_X - clearance, obstacle[1] + HAND_X + clearance
    side = obstacle[2] - HAND_Y - clearance
    aside = cube[1] < side + 0.01
    beyond = cube[0] > after
    sideways = jnp.stack([jnp.minimum(cube[0], before), side - _OVERSHOOT])
    forward = jnp.stack([after + _OVERSHOOT, jnp.minimum(cube[1], side)])
    return jnp.where(beyond, obs[-3:-1], jnp.where(aside, forward, sideways))


def is_held(obs: jax.Array) -> jax.Array:
    """Return whether the cube is between the fingers, [] bool."""
    offset = obs[4:7] - obs[:3]
    return (norm(offset[:2]) < 0.022) & (jnp.abs(offset[2]) < 0.02) & (obs[3] < 0.95)


def carry(
    obs: jax.Array,
    target: jax.Array,
    speed: float | jax.Array = 1.0,
    squeeze: float | jax.Array = _CLOSED,
    offset: float | jax.Array = 0.0,
) -> jax.Array:
    """Return the action [4] that fetches the cube from above and drags it to `target` [2].

    Args:
      obs: [D].
      target: [2] m, of the cube.
      speed: largest component of the hand's motion with the cube.
      squeeze: asked of the fingers that hold it.
      offset: [2] m or 0, from the cube to where the fingers come down.
    """
    hand, width, cube = obs[:3], obs[3], obs[4:7]
    place = cube[:2] + offset
    apart, height = norm(hand[:2] - place), hand[2] - _GRASP_HEIGHT
    over = apart < 0.012
    low = height < 0.012
    around = (apart < 0.03) & low
    held = around & (width < 0.95)
    across = _GAIN * (place - hand[:2])
    rise = _GAIN * (jnp.where(over | around, _GRASP_HEIGHT, _TRAVEL_HEIGHT) - hand[2])
    # Low beside the cube, or with fingers not yet open, the hand first rises.
    stuck = (height < 0.045) & ~over & ~around
    across = jnp.where(stuck, 0.0, across)
    rise = jnp.where(over & (width < 0.8) & (height > 0.012), 1.0, rise)
    # The hand moves by what the cube lacks, so a cube that slipped in the grip still arrives.
    drag = jnp.clip(_GAIN * (target - cube[:2]), -speed, speed)
    grip = jnp.where(around, squeeze, _OPEN)
    return jnp.concatenate([jnp.where(held, drag, across), jnp.stack([rise, grip])])
