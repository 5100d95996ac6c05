"""Observation statistics. They stay fixed online, so the first PPO ratio is exactly 1."""

import chex
import jax.numpy as jnp
import numpy as np

from farl_jax.types import Normalizer


def fit_normalizer(obs: np.ndarray, reward: float, floor: float = 1e-2) -> Normalizer:
    """Mean and floored standard deviation per dimension of obs [M, D], and a factor on rewards.

    The floor, in the observation's units, limits the gain of constant dimensions. MetaWorld's
    observation has many.
    """
    chex.assert_rank(obs, 2)
    mean, std = obs.mean(axis=0, dtype=np.float64), obs.std(axis=0, dtype=np.float64)
    return Normalizer(
        mean=jnp.asarray(mean, jnp.float32),
        std=jnp.asarray(np.maximum(std, floor), jnp.float32),
        reward=jnp.asarray(reward, jnp.float32),
    )
