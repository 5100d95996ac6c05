"""Diagonal Gaussian over actions, not squashed. The environment clips actions, the density not."""

import chex
import jax
import jax.numpy as jnp


def sample(key: jax.Array, mean: jax.Array, log_std: jax.Array) -> jax.Array:
    """Sample N(mean, exp(log_std)^2): [..., A] each -> [..., A]."""
    chex.assert_equal_shape([mean, log_std])
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)


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
