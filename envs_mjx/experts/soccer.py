"""Scripted controllers for Bounded Soccer: from one observation to one action.

Nothing slows a rolling ball, so only the hand stops it. The expert and the recovery both catch it
from above between the fingers, which move along y. They differ in the target.
An action's first three numbers move the hand by up to 1 cm each per step, the fourth closes (+)
or opens (-) the gripper.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.geometry import beyond_edge, norm

_STEP = 0.01  # m that an action of 1 moves the hand's target
_GAIN = 10.0  # action per metre of error
_CHASE_GAIN = 25.0  # the same on the way to the ball
_DROP_GAIN = 20.0  # the same for the height
_LAG = 4.0  # steps by which the hand trails its target
_TRAVEL_HEIGHT = 0.105  # m, of the hand; its fingers reach 0.045 m below and clear the ball
_CROSS_HEIGHT = 0.095  # m, above which the hand may move across the ball
_CATCH_HEIGHT = 0.05  # m, as low as the hand goes
_CLOSE_HEIGHT = 0.085  # m, below which the fingers close
_ALIGNED, _NEAR = 0.02, 0.05  # m in the plane: where the hand will be, and is, above the ball
_LOW = 0.045  # m of the hand above the ball, below which the fingers enclose it
_CAUGHT = 0.75  # gripper opening, below which the ball cannot leave
_HELD = 0.55  # gripper opening that holds the ball; much less squeezes it out
_GRIP_GAIN = 10.0  # effort per unit of opening
_EDGE_SHARES = (0.2, 0.2, 0.2, 0.4)  # x low, x high, y low, y high
_BESIDE = 0.035  # m in x between hand and ball, beyond which opening fingers miss the ball
_CALM = 0.8  # fastest that recovery carries the ball, as an action
_ASIDE = 0.25  # m in x, by which careless targets at the far edge miss the goal
_AT_REST = 1e-3  # m per step: a ball slower than this needs no catching, only no kick,
_NEAR_EDGE = 0.12  # unless it is as near as this, m
_RISE = (0.0, 0.0, 1.0, -1.0)  # action: straight up, fingers open
_OUT = (0.0, -1.0, 0.0, -1.0)  # action: out of the goal, fingers open
_GOAL_X, _GOAL_Y = 0.14, 0.125  # m from the goal's middle, within which its bar is above the hand,
_BAR_HEIGHT = 0.12  # if that is lower than this, m
_SAFE_INSET = 0.15  # m inside the edges, the target of recovery


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    target: jax.Array  # [2] m, target of the ball: usually not the goal
    speed: jax.Array  # [] of the hand with the ball, in (0, 1]
    aim_radius: jax.Array  # [] m, alignment of the hand before it comes down
    grip: jax.Array  # [] gripper effort; open fingers lose the ball
    shove: jax.Array  # [] bool, push from behind with the closed hand instead of caging


def soccer_expert(obs: jax.Array) -> jax.Array:
    """Catch the ball and carry it to the goal.

    Args:
      obs: [39].

    Returns:
      [4] action, not clipped.
    """
    return _catch_and_carry(obs, obs[36:38], 1.0)


def soccer_recovery(obs: jax.Array, bounds: jax.Array) -> jax.Array:
    """Catch a ball that rolls or is near an edge, and carry it well inside; else rise.

    A hand under the goal's bar first comes out.

    Args:
      obs: [39].
      bounds: [4] x_low, x_high, y_low, y_high, m.

    Returns:
      [4] action, not clipped.
    """
    ball = obs[4:6]
    safe = jnp.clip(ball, bounds[0::2] + _SAFE_INSET, bounds[1::2] - _SAFE_INSET)  # [2] m
    inset = jnp.minimum(ball - bounds[0::2], bounds[1::2] - ball).min()
    fetch = (norm(ball - obs[22:24]) > _AT_REST) | (inset < _NEAR_EDGE)
    action = jnp.where(fetch, _catch_and_carry(obs, safe, _CALM), jnp.array(_RISE))
    aside, ahead = jnp.abs(obs[0] - obs[36]), obs[37] - obs[1]  # m, of the goal's middle
    under_bar = (aside < _GOAL_X) & (ahead < _GOAL_Y) & (obs[2] < _BAR_HEIGHT)
    return jnp.where(under_bar, jnp.array(_OUT), action)


def _catch_and_carry(obs: jax.Array, place: jax.Array, speed: float) -> jax.Array:
    """Get above the ball, keep pace with it, come down around it, close, go to `place` [2] m.

    `speed` in (0, 1] limits the last part: a ball carried fast is flung when the hand stops.
    """
    hand, ball = obs[:3], obs[4:7]
    roll = (ball - obs[22:25])[:2]  # m per step
    offset = ball[:2] - hand[:2]
    motion = hand - obs[18:21]  # m per step; lag carries the hand on
    soon = offset + _LAG * (roll - motion[:2])
    here = norm(offset) <= _ALIGNED
    over = here | ((norm(soon) <= _ALIGNED) & (norm(offset) <= _NEAR))
    low = hand[2] - ball[2] <= _LOW
    caught = here & low & (obs[3] < _CAUGHT)
    chase = _CHASE_GAIN * soon + roll / _STEP
    chase = jnp.where(here | (hand[2] + _LAG * motion[2] > _CROSS_HEIGHT), chase, roll / _STEP)
    carry = jnp.clip(_GAIN * (place - hand[:2]), -speed, speed)
    across = jnp.where(caught, carry, chase)
    height = jnp.where(over, _CATCH_HEIGHT, _TRAVEL_HEIGHT)
    rise = _DROP_GAIN * (height - hand[2])
    opening = obs[3] + _LAG * (obs[3] - obs[21])  # soon
    squeeze = jnp.clip(_GRIP_GAIN * (opening - _HELD), -1.0, 1.0)
    # The fingers move along y and would kick a ball beside them, so a low hand that is neither
    # around it nor clear of it in x waits.
    clear = over | (jnp.abs(offset[0]) > _BESIDE)
    effort = jnp.where(here, squeeze, jnp.where(clear, -1.0, 0.0))
    effort = jnp.where(hand[2] < _CLOSE_HEIGHT, effort, -1.0)
    return jnp.concatenate([across, jnp.stack([rise, effort])])


def careless_soccer_traits(key: jax.Array, bounds: jax.Array) -> CarelessTraits:
    """Draw a careless operator for `bounds` [4] (x_low, x_high, y_low, y_high), m.

    The target lies beyond one of the four edges in most episodes, the far one more often since
    the goal is in the way; in the others it is near the middle.
    """
    keys = jax.random.split(key, 8)
    low, high = bounds[0::2], bounds[1::2]  # [2] m, in x and y
    inside = low + jax.random.uniform(keys[0], (2,)) * (high - low)
    edge = jax.random.choice(keys[1], 4, p=jnp.array(_EDGE_SHARES))
    beyond = jax.random.uniform(keys[2], minval=0.02, maxval=0.12)
    outside = beyond_edge(inside, bounds, edge, beyond)
    return CarelessTraits(
        target=jnp.where(jax.random.bernoulli(keys[3], 0.85), outside, inside),
        speed=jax.random.uniform(keys[4], minval=0.12, maxval=0.25),
        aim_radius=jax.random.uniform(keys[5], minval=0.01, maxval=0.03),
        grip=jax.random.uniform(keys[6], minval=-0.2, maxval=1.0),
        shove=jax.random.bernoulli(keys[7], 0.6),
    )


def careless_soccer(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Return the action [4] of the operator `traits` at `obs` [39]."""
    target, goal = traits.target, obs[36:38]
    aside = jnp.where(goal[0] > 0.0, -_ASIDE, _ASIDE)
    blocked = (target[1] > goal[1]) & (jnp.abs(target[0] - goal[0]) < _ASIDE)
    target = target.at[0].set(jnp.where(blocked, goal[0] + aside, target[0]))
    traits = traits._replace(target=target)
    return jnp.where(traits.shove, _shove(obs, traits), _drag(obs, traits))


def _drag(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Enclose the ball as badly as `traits` says, and take it to the wrong place."""
    hand, ball = obs[:3], obs[4:7]
    lined_up = norm(hand[:2] - ball[:2]) <= traits.aim_radius
    low = hand[2] - ball[2] <= _LOW
    across = jnp.where(lined_up & low, traits.target, ball[:2]) - hand[:2]
    across = _GAIN * across
    across = jnp.where(lined_up & low, jnp.clip(across, -traits.speed, traits.speed), across)
    height = jnp.where(lined_up, _CATCH_HEIGHT, _TRAVEL_HEIGHT)
    rise = _GAIN * (height - hand[2])
    effort = jnp.where(lined_up & low, traits.grip, -1.0)
    return jnp.concatenate([across, jnp.stack([rise, effort])])


def _shove(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Put the closed hand down behind the ball and push it ahead."""
    hand, ball = obs[:3], obs[4:7]
    way = traits.target - ball[:2]
    way = way / jnp.maximum(norm(way), 1e-3)
    ahead = jnp.dot(ball[:2] - hand[:2], way)  # m, how far the ball is in front of the hand
    aside = norm(ball[:2] - hand[:2] - ahead * way)
    ready = (ahead > 0.0) & (ahead < 0.12) & (aside < 0.03)
    low = hand[2] - ball[2] <= _LOW
    pushing = ready & low
    point = jnp.where(pushing, ball[:2] + 0.05 * way, ball[:2] - 0.075 * way)
    across = _GAIN * (point - hand[:2])
    across = jnp.where(pushing, jnp.clip(across, -traits.speed, traits.speed), across)
    rise = _GAIN * (jnp.where(ready, _CATCH_HEIGHT, _TRAVEL_HEIGHT) - hand[2])
    return jnp.concatenate([across, jnp.stack([rise, 1.0])])
