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
_CLEARANCE = 0.06  # m, how far from the wall's end the expert takes the puck
_OVERSHOOT = 0.03  # m, targets lie that much further, so that the hand does not slow down
_SAFE_DISTANCE = 0.16  # m from the wall, where recovery takes the puck
_GAIN = 10.0  # action per metre of error
_HASTE = 15.0  # the same, for recovery on its way to the puck
_HOLD_OFFSET = -0.005  # m in x between the puck and where the hand holds it
_HOLD_REACH = 0.035  # m, a puck nearer to the closed hand than this comes along


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    hand: experts.CarelessTraits  # how badly the puck is held; its target is not used
    clearance: jax.Array  # [] m, how far from the wall's end the puck is taken; may be negative
    straight: jax.Array  # [] bool, heads for the goal as if there were no wall


def wall_expert(obs: jax.Array, wall: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck round the wall: sideways, past it, to the goal."""
    return _carry(obs, _way_point(obs, wall, jnp.float32(_CLEARANCE)), _GAIN)


def careless_wall_traits(key: jax.Array) -> CarelessTraits:
    """Draw a careless operator: most cut the corner too close, some see no wall."""
    keys = jax.random.split(key, 5)
    hand = experts.careless_push_traits(keys[0], jnp.zeros(4))._replace(
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
    return experts.careless_push(obs, traits.hand._replace(target=target))


def wall_recovery(obs: jax.Array, wall: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck straight away from the wall.

    A low hand that holds the puck drags it along. One beside it backs off for as long as it still
    moves towards the wall, which ends a shove, rises, and fetches the puck from above.

    Args:
      obs: [39].
      wall: [4] m.
    """
    hand, puck = obs[:3], obs[4:7]
    nearest = jnp.clip(puck[:2], wall[0::2], wall[1::2])
    away = puck[:2] - nearest
    away = away / jnp.maximum(norm(away), 1e-3)
    low = hand[2] - puck[2] < 0.07
    apart = norm(hand[:2] - puck[:2])
    towards_wall = jnp.dot(obs[:2] - obs[18:20], away) < 0.0
    brake = jnp.where(towards_wall, 1.0, 0.0) * _full_speed(away)
    let_go = jnp.concatenate([brake, jnp.array([1.0, -1.0])])
    fetch = _carry(obs, nearest + _SAFE_DISTANCE * away, _HASTE)
    return jnp.where(low & (apart > _HOLD_REACH) & (apart < 0.12), let_go, fetch)


def _carry(obs: jax.Array, target: jax.Array, haste: float) -> jax.Array:
    """Return the action [4] that fetches the puck from above and drags it to `target` [2].

    `haste` is the gain, action per metre of error, until the puck is held.
    Fingers that closed on top of the puck are opened again before the hand comes down.
    """
    hand, puck = obs[:3], obs[4:7]
    grasp = puck.at[0].add(_HOLD_OFFSET)
    apart, height = norm(hand[:2] - grasp[:2]), hand[2] - grasp[2]
    holding = (height <= 0.045) & (apart <= _HOLD_REACH)
    lined_up = apart <= 0.02
    above = grasp.at[2].add(jnp.where(apart > 0.1, 0.2, 0.1))
    down = grasp.at[2].add(0.03)
    point = jnp.where(lined_up, down, above)
    # The hand moves by what the puck lacks, so a puck that slipped in the grip still arrives.
    along = jnp.append(hand[:2] + target - puck[:2], down[2])
    point = jnp.where(holding, along, point)
    closing = holding | (lined_up & (height < 0.1) & (obs[3] > 0.6))
    gain = jnp.where(holding, _GAIN, haste)
    return jnp.append(gain * (point - hand), jnp.where(closing, experts.GRIP, -1.0))


def _full_speed(way: jax.Array) -> jax.Array:
    """Return the direction `way` [2] with one axis at full speed."""
    return way / jnp.maximum(jnp.max(jnp.abs(way)), 1e-3)


def _way_point(obs: jax.Array, wall: jax.Array, clearance: jax.Array) -> jax.Array:
    """Return where the puck should go next, [2] m: beside the wall, past it, or the goal."""
    puck = obs[4:6]
    side = wall[0] - _PUCK_RADIUS - clearance
    aside = puck[0] < side + 0.015
    past = puck[1] > wall[3] + _PUCK_RADIUS
    sideways = jnp.stack([side - _OVERSHOOT, puck[1]])
    forward = jnp.stack([side, wall[3] + _PUCK_RADIUS + _OVERSHOOT])
    return jnp.where(past, obs[36:38], jnp.where(aside, forward, sideways))
