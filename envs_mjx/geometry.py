"""Signed distances, in metres: pure functions of positions, the same on every backend."""

import jax
import jax.numpy as jnp


def rectangle_margin(point: jax.Array, lower: jax.Array, upper: jax.Array) -> jax.Array:
    """Return how far `point` [2] is inside the rectangle [lower, upper], negative outside.

    Inside, the distance to the nearest edge; outside, minus the distance to the rectangle.
    """
    beyond = jnp.maximum(lower - point, point - upper)  # [2], positive outside that pair of edges
    outside = jnp.maximum(beyond, 0.0)
    square = jnp.sum(outside * outside)
    away = jnp.sqrt(jnp.where(square > 0.0, square, 1.0))
    return -jnp.where(square > 0.0, away, jnp.max(beyond))
