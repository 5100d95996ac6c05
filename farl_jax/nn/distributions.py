"""Diagonal Gaussian over actions, not squashed. The environment clips actions, the density not."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

Draw = Callable[[jax.Array, tuple[int, ...]], jax.Array]
"""(key, shape) -> standard normal numbers of that shape."""


def draw_rows(total: int, first: jax.Array) -> Draw:
    """Draw rows `first` on of what all `total` rows would get: the numbers of a share of them."""
    chex.assert_rank(first, 0)

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        whole = jax.random.normal(key, (total, *shape[1:]))
        return jax.lax.dynamic_slice_in_dim(whole, first, shape[0])

    return draw


def sample(
    key: jax.Array, mean: jax.Array, log_std: jax.Array, draw: Draw = jax.random.normal
) -> jax.Array:
    """Sample N(mean, exp(log_std)^2): [..., A] each -> [..., A]."""
    chex.assert_equal_shape([mean, log_std])
    return mean + jnp.exp(log_std) * draw(key, mean.shape)


def log_prob(action: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """log N(action; mean, exp(log_std)^2), summed over the action axis: [..., A] -> [...]."""
    chex.assert_equal_shape([action, mean, log_std])
    z = (action - mean) * jnp.exp(-log_std)
    return jnp.sum(-0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


def entropy(log_std: jax.Array) -> jax.Array:
    """Differential entropy in nats, [..., A] -> [...]."""
    return jnp.sum(log_std + 0.5 * jnp.log(2 * jnp.pi * jnp.e), axis=-1)


def kl_divergence(
    mean: jax.Array, log_std: jax.Array, other_mean: jax.Array, other_log_std: jax.Array
) -> jax.Array:
    """KL(N || N_other) in nats, summed over the action axis: [..., A] -> [...]."""
    chex.assert_equal_shape([mean, log_std, other_mean, other_log_std])
    variance_ratio = jnp.exp(2.0 * (log_std - other_log_std))
    z = (mean - other_mean) * jnp.exp(-other_log_std)
    return jnp.sum(other_log_std - log_std + 0.5 * (variance_ratio + z**2 - 1.0), axis=-1)
