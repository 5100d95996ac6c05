"""`in_blocks`: any number of vmaps computes the same, never on more rows than allowed at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend import core

from envs_mjx.physics.backends import _POOLED_WORK, _unpooled_rows, in_blocks

ROWS = 4


def function(a: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
    """A row's [] and [3] to two results, one of which is a factorisation."""
    return {"sum": 2.0 * a + b.sum(), "root": jnp.linalg.cholesky(jnp.eye(2) * (1.0 + a * a))}


def largest_batch(traced, *args) -> int:
    """Rows of the largest factorisation anywhere in the program."""

    def rows(jaxpr) -> list[int]:
        found = []
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "cholesky":
                found.append(int(np.prod(eqn.outvars[0].aval.shape[:-2])))
            for inner in core.jaxprs_in_params(eqn.params):
                found += rows(inner)
        return found

    return max(rows(jax.make_jaxpr(traced)(*args).jaxpr))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4,), (10,), (8,), (3, 10), (2, 3, 5)])
def test_blocks_change_no_number(shape):
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.normal(size=shape), jnp.float32)
    b = jnp.asarray(rng.normal(size=(*shape, 3)), jnp.float32)
    plain, blocked = function, in_blocks(function, ROWS)
    for _ in shape:
        plain, blocked = jax.vmap(plain), jax.vmap(blocked)
    expected, actual = jax.jit(plain)(a, b), jax.jit(blocked)(a, b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), actual, expected)
    assert largest_batch(blocked, a, b) <= ROWS
    assert len(shape) == 0 or np.prod(shape) <= ROWS or largest_batch(plain, a, b) > ROWS


def test_an_argument_may_be_the_same_for_all_rows():
    a, b = jnp.arange(10.0), jnp.arange(3.0)
    expected = jax.vmap(function, in_axes=(0, None))(a, b)
    actual = jax.vmap(in_blocks(function, ROWS), in_axes=(0, None))(a, b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), actual, expected)


@pytest.mark.parametrize("size", [1, 6, 15, 23, 60])
def test_a_block_is_the_largest_that_stays_in_its_thread(size):
    rows = _unpooled_rows(size)
    work = max(1, size**3 // 3)
    assert rows * work < _POOLED_WORK <= 2 * rows * work
