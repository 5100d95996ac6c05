"""Scripted controllers for Bounded Soccer: pure functions from one observation to one action."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from envs_mjx.shaping import norm


class CarelessTraits(NamedTuple):
    target: jax.Array


def soccer_expert(obs: jax.Array) -> jax.Array:
    hand, ball, goal = obs[:3], obs[4:7], obs[36:39]
    return jnp.append(10.0 * (ball - hand), 0.0)


def careless_soccer_traits(key: jax.Array, bounds: jax.Array) -> CarelessTraits:
    return CarelessTraits(bounds[:2])


def careless_soccer(obs, traits):
    return soccer_expert(obs)


def soccer_recovery(obs, bounds):
    return soccer_expert(obs)
