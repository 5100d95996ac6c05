"""Scripted controllers of the Franka's Bounded Soccer: from one observation to one action.

The expert pushes the ball from behind with both fingers, their gap narrower than the ball, so that
it lies between them; recovery comes down around it instead, fingers on both sides. The lane runs
along x, its middle is y = 0. An action's first three numbers move the finger tips by up to 1 cm
each per step; the fourth asks for a width of the fingers, from 1 (closed) to -1 (8 cm). An
observation begins with finger tips 3, width 1 (1 is open) and ball 3, ends with the goal 3, and has
the frame before in between.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.geometry import norm

_GAIN = 40.0  # action per metre of error
_STEP = 0.01  # m that an action of 1 moves the hand's target
_TRAVEL_HEIGHT, _LOW_HEIGHT = 0.075, 0.025  # m, of the finger tips
_BEHIND = 0.033  # m between ball and fingers that lie against it from behind
_CUP = 0.35  # asked of the fingers: 2.6 cm apart
_PUSH_SPEED = 0.35  # of the expert's hand with the ball, as an action
_CENTERING, _MOST_ASIDE = 0.3, 0.003  # m beside the ball for each m that it is off, and at most m
_LAG = 2.0  # steps by which the hand trails its target


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    drift: jax.Array  # [] direction of the push, y for each x
    speed: jax.Array  # [] of the hand with the ball, in (0, 1]
    aside: jax.Array  # [] m beside the ball's middle, where the fingers push
    cup: jax.Array  # [] asked of the fingers; closed ones let the ball roll off


def careless_traits(key: jax.Array) -> CarelessTraits:
    """Draw a careless operator: pushes askew, off the middle, or with closed fingers."""
    keys = jax.random.split(key, 4)
    return CarelessTraits(
        drift=jax.random.uniform(keys[0], minval=-0.4, maxval=0.4),
        speed=jax.random.uniform(keys[1], minval=0.15, maxval=0.5),
        aside=jax.random.uniform(keys[2], minval=-0.008, maxval=0.008),
        cup=jax.random.uniform(keys[3], minval=0.2, maxval=1.0),
    )


def soccer_expert(obs: jax.Array) -> jax.Array:
    """Return the action [4] that gets behind the ball and pushes it to the goal."""
    ball, goal = obs[4:6], obs[-3:-1]
    way = jnp.array([1.0, 0.0])
    # The ball lies in the cup of the fingers and goes where they go.
    aside = jnp.clip(_CENTERING * (goal[1] - ball[1]), -_MOST_ASIDE, _MOST_ASIDE)
    return _push(obs, way, jnp.float32(_PUSH_SPEED), aside, jnp.float32(_CUP))


def careless_soccer(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Return the action [4] of the operator `traits`."""
    way = jnp.stack([jnp.ones(()), traits.drift])
    return _push(obs, way, traits.speed, traits.aside, traits.cup)


def _push(
    obs: jax.Array, way: jax.Array, speed: jax.Array, aside: jax.Array, cup: jax.Array
) -> jax.Array:
    """Get behind the ball, low, and push it along `way` [2]; its x is 1."""
    hand, ball = obs[:3], obs[4:7]
    ahead, beside = ball[0] - hand[0], ball[1] + aside - hand[1]
    placed = (ahead > 0.02) & (ahead < 0.07) & (jnp.abs(beside) < 0.012)
    low = hand[2] < _LOW_HEIGHT + 0.006
    pushing = placed & low
    behind = ball[:2] - jnp.array([_BEHIND + 0.012, 0.0])
    point = behind.at[1].add(aside)
    across = _GAIN * (point - hand[:2])
    blocked = ~pushing & (hand[2] < 0.06) & (ahead < 0.03)  # low beside or before the ball: rise
    across = jnp.where(blocked, 0.0, across)
    contact = _GAIN * jnp.stack([ahead - _BEHIND, beside])
    push = speed * way + jnp.stack([jnp.clip(contact[0], 0.0, 0.5), contact[1]])
    height = jnp.where(placed | pushing, _LOW_HEIGHT, _TRAVEL_HEIGHT)
    near = norm(point - hand[:2]) < 0.012
    height = jnp.where(near, _LOW_HEIGHT, height)
    rise = _GAIN * (height - hand[2])
    return jnp.concatenate([jnp.where(pushing, push, across), jnp.stack([rise, cup])])


def soccer_recovery(obs: jax.Array) -> jax.Array:
    """Return the action [4] that comes down around the ball and brings it to the lane's middle."""
    before = _before(obs)
    hand, width, ball = obs[:3], obs[3], obs[4:7]
    roll = ball[:2] - before[4:6]  # m per step
    motion = hand[:2] - before[:2]  # m per step; lag carries the hand on
    offset = ball[:2] - hand[:2]
    soon = offset + _LAG * (roll - motion)
    over = (norm(offset) < 0.012) | (norm(soon) < 0.010)
    around = (norm(offset) < 0.025) & (hand[2] < 0.045) & (width > 0.55)
    clear = hand[2] > 0.06
    chase = _GAIN * soon + roll / _STEP
    # Low beside the ball the hand first rises.
    across = jnp.where(clear | over, chase, roll / _STEP)
    inward = jnp.clip(_GAIN * jnp.stack([offset[0], -ball[1]]), -0.4, 0.4)
    across = jnp.where(around, inward, across)
    height = jnp.where(over | around, _LOW_HEIGHT, _TRAVEL_HEIGHT)
    rise = _GAIN * (height - hand[2])
    grip = jnp.where(around, 0.0, -1.0)
    return jnp.concatenate([across, jnp.stack([rise, grip])])


def _before(obs: jax.Array) -> jax.Array:
    """Return the frame of one step ago."""
    size = (obs.shape[0] - 3) // 2
    return obs[size : 2 * size]
