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


def cylinder_box_distance(
    center: jax.Array, radius: float, half_height: float, box: jax.Array, half: jax.Array
) -> jax.Array:
    """Return the distance between the surfaces of an upright cylinder and a box, [].

    Negative where they overlap: then minus how far the cylinder must go sideways or up to be free.

    Args:
      center: [3] of the cylinder; radius and half_height are its size.
      box: [3] centre of the box, whose edges are along x, y and z; half: [3] half its size.
    """
    aside = -rectangle_margin(center[:2], (box - half)[:2], (box + half)[:2]) - radius
    above = jnp.abs(center[2] - box[2]) - half[2] - half_height
    inside = jnp.minimum(jnp.maximum(aside, above), 0.0)
    return inside + norm(jnp.maximum(jnp.stack([aside, above]), 0.0))


def segment_distance(
    first: tuple[jax.Array, jax.Array], second: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """Return the least distance [] between two segments, each given by its two ends [3].

    Two capsules are that far apart, less their radii. The distance of two points that slide along
    the segments is convex in the two positions, so each is the clamped best one for the other.
    """
    (a, a_end), (b, b_end) = first, second
    along_a, along_b, between = a_end - a, b_end - b, a - b
    aa = jnp.maximum(jnp.dot(along_a, along_a), 1e-12)  # a segment may be a point
    bb = jnp.maximum(jnp.dot(along_b, along_b), 1e-12)
    ab = jnp.dot(along_a, along_b)
    a_between, b_between = jnp.dot(along_a, between), jnp.dot(along_b, between)
    spread = aa * bb - ab * ab  # zero where parallel, and then any point of a will do
    parallel = spread < 1e-9 * aa * bb
    on_a = jnp.clip((ab * b_between - bb * a_between) / jnp.where(parallel, 1.0, spread), 0.0, 1.0)
    on_a = jnp.where(parallel, 0.0, on_a)
    on_b = jnp.clip((ab * on_a + b_between) / bb, 0.0, 1.0)
    on_a = jnp.clip((ab * on_b - a_between) / aa, 0.0, 1.0)
    return norm(between + on_a * along_a - on_b * along_b)


def beyond_edge(inside: jax.Array, bounds: jax.Array, edge: jax.Array, by: jax.Array) -> jax.Array:
    """Move the point `inside` [2] out of `bounds` [4], to `by` m beyond one edge; [2] m.

    `edge` [] counts x_low, x_high, y_low, y_high.
    """
    axis, outward = edge // 2, jnp.where(edge % 2 == 0, -1.0, 1.0)
    return inside.at[axis].set(bounds[edge] + outward * by)


def norm(vector: jax.Array) -> jax.Array:
    """Return the Euclidean length of `vector` [D], whose gradient at zero is zero, not NaN."""
    square = jnp.sum(vector * vector)
    positive = square > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1.0)), 0.0)


def box_distance(
    center: jax.Array, half: jax.Array, other: jax.Array, other_half: jax.Array
) -> jax.Array:
    """Return the distance [] between two boxes whose edges are along x, y and z.

    Negative where they overlap: then minus how far one must go along an axis to be free.

    Args:
      center, other: [3] their centres; half, other_half: [3] half their sizes, 0 for a point.
    """
    gap = jnp.abs(center - other) - half - other_half  # [3]
    return jnp.minimum(jnp.max(gap), 0.0) + norm(jnp.maximum(gap, 0.0))


def turned_half(quat: jax.Array, half: jax.Array) -> jax.Array:
    """Return half the size [3] of the upright box around one of half size `half` [3].

    `quat` [4], scalar last, is how that one is turned. With R its matrix, this is |R| half.
    """
    x, y, z, w = quat
    matrix = jnp.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )
    return jnp.abs(matrix) @ half
