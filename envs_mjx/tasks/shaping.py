"""MetaWorld's reward shaping as pure functions of scalars (vmap them for batches)."""

import jax
import jax.numpy as jnp

from envs_mjx.geometry import norm

_VALUE_AT_MARGIN = 0.1


def tolerance(
    x: jax.Array, lower: jax.Array | float, upper: jax.Array | float, margin: jax.Array | float
) -> jax.Array:
    """Return 1 for x within [lower, upper], falling to 0.1 at distance `margin` outside.

    With d = distance to the interval / margin, the value is 1 / (1 + 9 d^2): MetaWorld's
    `tolerance` with the sigmoid "long_tail", the only one that its push tasks use. Margin 0
    gives 0 outside.
    """
    distance = jnp.maximum(jnp.maximum(lower - x, x - upper), 0.0)
    inside = distance <= 0.0
    has_margin = margin > 0.0
    scaled = distance / jnp.where(has_margin, margin, 1.0)
    tail = 1.0 / (1.0 + (1.0 / _VALUE_AT_MARGIN - 1.0) * scaled * scaled)
    return jnp.where(inside, 1.0, jnp.where(has_margin, tail, 0.0))


def hamacher_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return a b / (a + b - a b) for a and b in [0, 1], and 0 where both are 0."""
    denominator = a + b - a * b
    positive = denominator > 0.0
    return jnp.where(positive, a * b / jnp.where(positive, denominator, 1.0), 0.0)


def caging_reward(
    gripper_effort: jax.Array,
    pads_y: jax.Array,
    tcp: jax.Array,
    object_pos: jax.Array,
    object_start: jax.Array,
    tcp_start: jax.Array,
    *,
    object_radius: float,
    pad_reach: float,
    xz_reach: float,
) -> jax.Array:
    """Return how well the fingers enclose and squeeze the object, in [0, 1].

    MetaWorld's `_gripper_caging_reward` with `high_density`: the mean of "caged" and "caged and
    squeezed". The fingers open along y, so caging looks at y for the pads and at x, z for the
    point between the finger tips.

    Args:
      gripper_effort: last component of the action.
      pads_y: [2] m, y of the left and the right pad.
      tcp: [3] m, the point between the finger tips.
      object_pos: [3] m now; object_start: [3] m at reset.
      tcp_start: [3] m, `tcp` at reset.
      object_radius: m, how close to the object's centre a pad may come.
      pad_reach: m, distance from the object within which a pad counts as beside it.
      xz_reach: m, distance in the x-z plane within which `tcp` counts as at the object.
    """
    pad_margin = jnp.abs(jnp.abs(pads_y - object_start[1]) - pad_reach)  # [2]
    beside = tolerance(jnp.abs(pads_y - object_pos[1]), object_radius, pad_reach, pad_margin)
    caging_y = hamacher_product(beside[0], beside[1])

    xz = jnp.array([0, 2])
    xz_margin = norm((object_start - tcp_start)[xz]) - xz_reach
    caging_xz = tolerance(norm((tcp - object_pos)[xz]), 0.0, xz_reach, xz_margin)

    caging = hamacher_product(caging_y, caging_xz)
    squeezing = jnp.where(caging > 0.97, jnp.clip(gripper_effort, 0.0, 1.0), 0.0)
    return (hamacher_product(caging, squeezing) + caging) / 2.0
