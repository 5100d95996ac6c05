"""Scripted controllers for Obstructed Push: from one observation to one action.

An action's first three numbers move the hand by up to 1 cm each per step, the fourth closes (+)
or opens (-) the gripper. The elbow follows the hand, so a hand kept back keeps it off the vase.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.experts import push
from envs_mjx.geometry import norm

_SHORT_OF_GOAL = 0.022  # m in x: the expert stops this side of a goal near the vase
_NEAR_VASE = 0.03  # m in x: goals further than this towards the vase are near it


class CarelessTraits(NamedTuple):
    """How a careless operator acts throughout one episode."""

    target: jax.Array  # [3] m, target of the hand, with or without the puck
    gain: jax.Array  # [] action per metre of error
    grip: jax.Array  # [] gripper effort; open fingers lose the puck
    reach: jax.Array  # [] bool, go straight to the target through the air, puck or not


def vase_expert(obs: jax.Array) -> jax.Array:
    """Return the action [4] that pushes the puck to a place within the goal but off the vase.

    MetaWorld's push-v3 expert with a goal that lies up to 2.2 cm nearer to the middle, which is
    still inside the radius that counts as success.
    """
    short = jnp.clip(obs[36] - _NEAR_VASE, 0.0, _SHORT_OF_GOAL)
    return push.push_expert(obs.at[36].add(-short))


def careless_vase_traits(key: jax.Array) -> CarelessTraits:
    """Draw a careless operator, whose target lies between the goals and the vase."""
    keys = jax.random.split(key, 4)
    low, high = jnp.array([0.08, 0.6, 0.06]), jnp.array([0.32, 0.9, 0.3])
    return CarelessTraits(
        target=low + jax.random.uniform(keys[0], (3,)) * (high - low),
        gain=jax.random.uniform(keys[1], minval=4.0, maxval=15.0),
        grip=jax.random.uniform(keys[2], minval=-0.5, maxval=1.0),
        reach=jax.random.bernoulli(keys[3], 0.35),
    )


def careless_vase(obs: jax.Array, traits: CarelessTraits) -> jax.Array:
    """Return the action [4] of the operator `traits` at `obs` [39]."""
    hand, puck = obs[:3], obs[4:7]
    lined_up = norm(hand[:2] - puck[:2]) <= 0.025
    low = jnp.abs(hand[2] - puck[2]) <= 0.045
    above, down = puck.at[2].add(0.15), puck.at[2].add(0.03)
    pull = jnp.where(lined_up, jnp.where(low, traits.target.at[2].set(puck[2] + 0.02), down), above)
    point = jnp.where(traits.reach, traits.target, pull)
    effort = jnp.where(traits.reach | lined_up, traits.grip, 0.0)
    return jnp.append(traits.gain * (point - hand), effort)


def vase_recovery(obs: jax.Array, base: jax.Array) -> jax.Array:
    """Return the action [4] that takes the arm away from the vase at full speed.

    Straight away from the vase's axis and level, with the fingers closed, so that a held puck
    comes along.

    Args:
      obs: [39].
      base: [2] m, where the vase's axis meets the table.
    """
    away = obs[:2] - base
    away = away / jnp.maximum(jnp.max(jnp.abs(away)), 1e-3)
    return jnp.concatenate([away, jnp.array([0.0, push.GRIP])])
