"""Reward shaping against numbers that MetaWorld's own functions gave, and geometry by hand."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx.geometry import rectangle_margin
from envs_mjx.shaping import caging_reward, hamacher_product, norm, tolerance

GOLDEN = np.load(pathlib.Path(__file__).parent / "data" / "push_golden.npz")
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
