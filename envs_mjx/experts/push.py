"""Scripted controllers for Bounded Push: from one observation to one action.

An action's first three numbers move the hand by up to 1 cm each per step, the fourth closes (+)
or opens (-) the gripper. All controllers are proportional: they steer the hand towards a point
computed from the observation.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.geometry import beyond_edge, norm

_EXPERT_GAIN = 10.0  # action per metre of error
GRIP = 0.6  # effort with which MetaWorld's expert holds the puck
_SAFE_INSET = 0.12  # m inside the edges, the target of recovery
_HOLD_OFFSET = -0.005  # m in x between the puck and where the hand holds it
_HOLD_REACH = 0.035  # m, the closed hand holds a nearer puck
_HASTE = 15.0  # action per metre of error, for recovery on its way to the puck


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    target: jax.Array  # [2] m, target of the puck: usually not the goal
    gain: jax.Array  # [] action per metre of error
    aim_radius: jax.Array  # [] m, alignment of the hand before it comes down
    grip: jax.Array  # [] gripper effort; open fingers lose the puck
    shove: jax.Array  # [] bool, push from behind with the closed hand instead of caging
    aim_offset: jax.Array  # [2] m, where beside the puck the hand comes down


def push_expert(obs: jax.Array) -> jax.Array:
    """Return MetaWorld's push-v3 policy: above the puck, down over it, drag it to the goal.

    Args:
      obs: [39].

    Returns:
      [4] action, not clipped.
    """
    hand, puck, goal = obs[:3], obs[4:7], obs[36:39]
    grasp = puck.at[0].add(_HOLD_OFFSET)
    lined_up = norm(hand[:2] - grasp[:2]) <= 0.02
    low = jnp.abs(hand[2] - grasp[2]) <= 0.04
    above, down = grasp.at[2].add(0.2), grasp.at[2].add(0.03)
    target = jnp.where(lined_up, jnp.where(low, goal, down), above)
    near = (norm(hand[:2] - puck[:2]) <= 0.02) & (jnp.abs(hand[2] - puck[2]) <= 0.10)
    return jnp.append(_EXPERT_GAIN * (target - hand), jnp.where(near, GRIP, 0.0))


def careless_push_traits(key: jax.Array, bounds: jax.Array) -> CarelessTraits:
    """Draw a careless operator for `bounds` [4] (x_low, x_high, y_low, y_high), m.

    The target lies beyond one of the four edges, each as likely, in most episodes; in the
    others it is near the middle.
    """
    keys = jax.random.split(key, 8)
    along = jax.random.uniform(keys[0], (2,))
    low, high = bounds[0::2], bounds[1::2]  # [2] m, in x and y
    inside = low + along * (high - low)
    edge = jax.random.randint(keys[1], (), 0, 4)
    beyond = jax.random.uniform(keys[2], minval=0.0, maxval=0.12)
    outside = beyond_edge(inside, bounds, edge, beyond)
    return CarelessTraits(
        target=jnp.where(jax.random.bernoulli(keys[3], 0.8), outside, inside),
        gain=jax.random.uniform(keys[4], minval=5.0, maxval=20.0),
        aim_radius=jax.random.uniform(keys[5], minval=0.015, maxval=0.04),
        grip=jax.random.uniform(keys[6], minval=-0.5, maxval=1.0),
        shove=jax.random.bernoulli(keys[7], 0.45),
        aim_offset=jax.random.uniform(
            jax.random.fold_in(key, 8), (2,), minval=-0.015, maxval=0.015
        ),
    )


def careless_push(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Return the action [4] of the operator `traits` at `obs` [39]."""
    return jnp.where(traits.shove, _shove(obs, traits), _drag(obs, traits))


def _drag(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Cage the puck as badly as `traits` says, and pull it to the wrong place."""
    hand, puck = obs[:3], obs[4:7]
    grasp = puck.at[:2].add(traits.aim_offset)
    lined_up = norm(hand[:2] - grasp[:2]) <= traits.aim_radius
    low = jnp.abs(hand[2] - grasp[2]) <= 0.045
    above, down = grasp.at[2].add(0.15), grasp.at[2].add(0.03)
    target = jnp.append(traits.target, puck[2] + 0.02)
    point = jnp.where(lined_up, jnp.where(low, target, down), above)
    effort = jnp.where(lined_up, traits.grip, 0.0)
    return jnp.append(traits.gain * (point - hand), effort)


def _shove(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Put the hand down behind the puck and push it ahead."""
    hand, puck = obs[:3], obs[4:7]
    way = traits.target - puck[:2]
    way = way / jnp.maximum(norm(way), 1e-3)
    behind = jnp.append(puck[:2] - 0.07 * way, puck[2])
    ahead = jnp.dot(puck[:2] - hand[:2], way)  # m, how far the puck is in front of the hand
    aside = norm(puck[:2] - hand[:2] - ahead * way)
    ready = (ahead > 0.0) & (ahead < 0.12) & (aside < 0.03)
    low = hand[2] - puck[2] <= 0.06
    above, down = behind.at[2].add(0.15), behind.at[2].add(0.03)
    push = jnp.append(puck[:2] + 0.05 * way, puck[2] + 0.03)
    point = jnp.where(ready, jnp.where(low, push, down), above)
    return jnp.append(traits.gain * (point - hand), 1.0)


def push_recovery(obs: jax.Array, bounds: jax.Array) -> jax.Array:
    """Return the action [4] that takes the puck well inside `bounds`.

    Args:
      obs: [39].
      bounds: [4] x_low, x_high, y_low, y_high, m.
    """
    puck = obs[4:6]
    safe = jnp.clip(puck, bounds[0::2] + _SAFE_INSET, bounds[1::2] - _SAFE_INSET)  # [2] m
    inwards = (safe - puck) / jnp.maximum(norm(safe - puck), 1e-3)
    return retreat(obs, inwards, safe)


def retreat(obs: jax.Array, away: jax.Array, target: jax.Array) -> jax.Array:
    """Return the action [4] that ends the danger to the puck, then takes it to `target`.

    A low hand that holds the puck drags it along. One beside it backs off for as long as it still
    moves towards the danger, which ends a shove, rises, and fetches the puck from above.

    Args:
      obs: [39].
      away: [2] unit vector from the danger.
      target: [2] m.
    """
    hand, puck = obs[:3], obs[4:7]
    low = hand[2] - puck[2] < 0.07
    apart = norm(hand[:2] - puck[:2])
    towards_danger = jnp.dot(obs[:2] - obs[18:20], away) < 0.0
    full_speed = away / jnp.maximum(jnp.max(jnp.abs(away)), 1e-3)  # one axis at 1
    brake = jnp.where(towards_danger, 1.0, 0.0) * full_speed
    let_go = jnp.concatenate([brake, jnp.array([1.0, -1.0])])
    fetch = carry(obs, target, _HASTE)
    return jnp.where(low & (apart > _HOLD_REACH) & (apart < 0.12), let_go, fetch)


def carry(obs: jax.Array, target: jax.Array, haste: float = _EXPERT_GAIN) -> jax.Array:
    """Return the action [4] that fetches the puck from above and drags it to `target` [2].

    `haste` is the gain, action per metre of error, until the puck is held.
    Fingers closed on top of the puck open before the hand comes down.
    """
    hand, puck = obs[:3], obs[4:7]
    grasp = puck.at[0].add(_HOLD_OFFSET)
    apart, height = norm(hand[:2] - grasp[:2]), hand[2] - grasp[2]
    holding = (height <= 0.045) & (apart <= _HOLD_REACH)
    lined_up = apart <= 0.02
    above = grasp.at[2].add(jnp.where(apart > 0.1, 0.2, 0.1))
    down = grasp.at[2].add(0.03)
    point = jnp.where(lined_up, down, above)
    # The hand moves by the puck's error, so a puck that slipped in the grip still arrives.
    along = jnp.append(hand[:2] + target - puck[:2], down[2])
    point = jnp.where(holding, along, point)
    closing = holding | (lined_up & (height < 0.1) & (obs[3] > 0.6))
    gain = jnp.where(holding, _EXPERT_GAIN, haste)
    return jnp.append(gain * (point - hand), jnp.where(closing, GRIP, -1.0))
