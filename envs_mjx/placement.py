"""Where an episode's object and goal stand."""

import jax
import jax.numpy as jnp

from envs_mjx.errors import EnvError

Range = tuple[float, float]
"""Lower and upper end, m."""


def check_apart(object_y: Range, goal_y: Range, min_distance: float) -> None:
    """Refuse ranges whose every draw could not be `min_distance` apart, with an EnvError."""
    if goal_y[1] - object_y[1] < min_distance:
        raise EnvError(
            f"min_distance {min_distance} cannot always be met: the far edge of goal_y "
            f"{goal_y} must be that much beyond object_y {object_y}"
        )


def draw_apart(
    key: jax.Array,
    object_x: Range,
    object_y: Range,
    goal_x: Range,
    goal_y: Range,
    min_distance: float,
) -> tuple[jax.Array, jax.Array]:
    """Draw the starts of object and goal, both [2] m, at least `min_distance` m apart.

    The object and goal x are uniform as in MetaWorld; goal y is uniform over the part of its
    range that is far enough away. MetaWorld draws all anew while too close, which is the same
    given the other three numbers, and weighs those by how much of the range is left to them:
    with push-v3's ranges the two distributions differ by 5 % in total variation, and where all
    goals are far enough, as on push-wall-v3, not at all.
    """
    parts = jax.random.uniform(key, (4,))  # one draw: random bits dominate a reset's cost
    low = jnp.array([object_x[0], object_y[0], goal_x[0]])
    high = jnp.array([object_x[1], object_y[1], goal_x[1]])
    start_x, start_y, drawn_x = low + parts[:3] * (high - low)
    needed = jnp.sqrt(jnp.maximum(min_distance**2 - (drawn_x - start_x) ** 2, 0.0))
    nearest_y = jnp.maximum(goal_y[0], start_y + needed)
    drawn_y = nearest_y + parts[3] * (goal_y[1] - nearest_y)
    return jnp.stack([start_x, start_y]), jnp.stack([drawn_x, drawn_y])
