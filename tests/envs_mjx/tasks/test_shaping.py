"""Reward shaping against numbers that MetaWorld's own functions gave, and geometry by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx.geometry import (
    beyond_edge,
    cylinder_box_distance,
    norm,
    rectangle_margin,
    segment_distance,
)
from envs_mjx.tasks.shaping import caging_reward, hamacher_product, tolerance

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "data" / "push_golden.npz")
pytestmark = pytest.mark.usefixtures("no_rank_promotion")


def test_tolerance_matches_metaworld() -> None:
    got = jax.vmap(tolerance)(*jnp.asarray(GOLDEN["tolerance_args"]).T)
    np.testing.assert_allclose(got, GOLDEN["tolerance"], atol=1e-6)


def test_tolerance_at_one_margin_is_a_tenth() -> None:
    np.testing.assert_allclose(tolerance(0.35, 0.0, 0.05, 0.3), 0.1, rtol=1e-6)


def test_hamacher_product_matches_metaworld() -> None:
    got = jax.vmap(hamacher_product)(*jnp.asarray(GOLDEN["hamacher_args"]).T)
    np.testing.assert_allclose(got, GOLDEN["hamacher"], atol=1e-6)


def test_caging_reward_matches_metaworld() -> None:
    def evaluate(row: jax.Array) -> jax.Array:
        return caging_reward(
            row[0],
            row[1:3],
            row[3:6],
            row[6:9],
            row[9:12],
            row[12:15],
            object_radius=0.015,
            pad_reach=0.05,
            xz_reach=0.005,
        )

    got = jax.vmap(evaluate)(jnp.asarray(GOLDEN["caging_args"]))
    assert GOLDEN["caging"].max() > 0.9  # squeezing counts only in a few of the rows
    np.testing.assert_allclose(got, GOLDEN["caging"], atol=2e-5)


def test_gradients_at_the_kinks_are_finite() -> None:
    assert np.all(np.isfinite(jax.grad(norm)(jnp.zeros(3))))
    assert np.isfinite(jax.grad(lambda x: hamacher_product(x, x))(0.0))
    assert np.isfinite(jax.grad(lambda x: tolerance(x, 0.0, 0.1, 0.0))(0.2))
    square = (jnp.array([-1.0, -1.0]), jnp.array([1.0, 1.0]))
    assert np.all(np.isfinite(jax.grad(rectangle_margin)(jnp.array([0.5, 0.0]), *square)))


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0.0, 2.0), 1.0),  # the middle of a 2 x 4 rectangle
        ((0.75, 2.0), 0.25),
        ((0.0, 0.1), 0.1),
        ((1.0, 2.0), 0.0),
        ((1.5, 2.0), -0.5),
        ((0.0, -2.0), -2.0),
        ((4.0, 8.0), -5.0),  # 3 and 4 beyond a corner
    ],
)
def test_rectangle_margin(point: tuple[float, float], expected: float) -> None:
    got = rectangle_margin(jnp.array(point), jnp.array([-1.0, 0.0]), jnp.array([1.0, 4.0]))
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("center", "expected"),
    [
        ((3.0, 0.0, 0.0), 1.5),  # a cylinder of radius 0.5 beside a box of half size 1, 2, 3
        ((1.5, 0.0, 0.0), 0.0),
        ((1.2, 0.0, 0.0), -0.3),
        ((4.0, 6.0, 0.0), 4.5),  # 3 and 4 beyond a corner
        ((0.0, 0.0, 6.0), 2.0),  # above: half heights 3 and 1
        ((4.5, 0.0, 8.0), 5.0),  # 3 aside and 4 above
        ((0.0, 0.0, 3.9), -0.1),  # up is the shortest way out
    ],
)
def test_cylinder_box_distance(center: tuple[float, float, float], expected: float) -> None:
    moved, half = jnp.array([0.1, -0.2, 0.3]), jnp.array([1.0, 2.0, 3.0])
    got = cylinder_box_distance(jnp.array(center) + moved, 0.5, 1.0, moved, half)
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (((0, 0, 0), (1, 0, 0)), ((0.5, -1, 2), (0.5, 1, 2)), 2.0),  # crossing
        (((0, 0, 0), (1, 0, 0)), ((4, 4, 0), (4, 8, 0)), 5.0),  # end to end
        (((0, 0, 0), (1, 0, 0)), ((0.5, 3, 0), (0.5, 8, 0)), 3.0),  # end to middle
        (((0, 0, 0), (2, 0, 0)), ((1, 1, 0), (3, 1, 0)), 1.0),  # parallel side by side
        (((0, 0, 0), (2, 0, 0)), ((5, 4, 0), (9, 4, 0)), 5.0),  # parallel, apart
        (((0, 0, 0), (0, 0, 0)), ((3, -1, 4), (3, 1, 4)), 5.0),  # one is a point
        (((0, 0, 0), (2, 2, 2)), ((0, 2, 1), (2, 0, 1)), 0.0),  # meeting
    ],
)
def test_segment_distance(first: tuple, second: tuple, expected: float) -> None:
    one, other = (tuple(jnp.array(end, jnp.float32) for end in pair) for pair in (first, second))
    for a, b in ((one, other), (other, one), (one[::-1], other)):
        np.testing.assert_allclose(segment_distance(a, b), expected, atol=1e-5)


def test_segment_distance_matches_a_search_over_both_segments() -> None:
    ends = np.random.default_rng(0).uniform(-1.0, 1.0, (200, 4, 3))
    along = np.linspace(0.0, 1.0, 101)[:, None]
    points = lambda a, b: a + along * (b - a)
    expected = [
        np.linalg.norm(points(a, b)[:, None] - points(c, d)[None], axis=-1).min()
        for a, b, c, d in ends
    ]
    a, b, c, d = jnp.asarray(ends, jnp.float32).swapaxes(0, 1)
    got = jax.vmap(lambda a, b, c, d: segment_distance((a, b), (c, d)))(a, b, c, d)
    np.testing.assert_allclose(got, expected, atol=0.01)  # the search's steps are up to 0.03
    assert np.all(got <= np.array(expected) + 1e-5)


@pytest.mark.parametrize(
    ("edge", "point"),
    [(0, [-1.25, 3.0]), (1, [1.25, 3.0]), (2, [0.5, 1.75]), (3, [0.5, 4.25])],
)
def test_a_point_moves_beyond_the_edge_that_is_named(edge, point):
    bounds = jnp.array([-1.0, 1.0, 2.0, 4.0])
    moved = beyond_edge(jnp.array([0.5, 3.0]), bounds, jnp.int32(edge), jnp.float32(0.25))
    np.testing.assert_allclose(moved, point)
