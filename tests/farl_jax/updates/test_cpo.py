"""CPO's step: conjugate gradients, every case of the dual by brute force, the line search."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import ConstraintConfig
from farl_jax.updates import cpo

MAX_KL = 0.02
SOLVE = jax.jit(cpo.solve_dual, static_argnums=4)
CURVATURE = np.array([[2.0, 0.6], [0.6, 0.5]])


def local_step(g, b, c, curvature=CURVATURE):
    """(solution, step x) of the local problem, H^-1 exact."""
    natural_g, natural_b = np.linalg.solve(curvature, g), np.linalg.solve(curvature, b)
    q, r, s = g @ natural_g, g @ natural_b, b @ natural_b
    found = SOLVE(*(jnp.float32(x) for x in (q, r, s, c)), MAX_KL)
    return found, float(found.along_reward) * natural_g + float(found.along_cost) * natural_b


def ellipse(curvature=CURVATURE, radii=200, angles=1500):
    """All of the trust region, [points, 2]."""
    radius, angle = np.meshgrid(np.linspace(0, 1, radii), np.linspace(0, 2 * np.pi, angles))
    disc = np.sqrt(2 * MAX_KL) * np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1)
    factor = np.linalg.cholesky(curvature)
    return np.linalg.solve(factor.T, disc.reshape(-1, 2).T).T


POINTS = ellipse()


def best_by_force(g, b, c):
    """Highest g'x in the trust region where c + b'x <= 0."""
    allowed = POINTS[POINTS @ b + c <= 1e-9]
    return (allowed @ g).max()


G, B = np.array([1.0, 0.5]), np.array([0.8, -0.3])
REACH = np.sqrt(2 * MAX_KL * B @ np.linalg.solve(CURVATURE, B))  # most that b'x can be


def kl(x):
    return x @ CURVATURE @ x / 2


@pytest.mark.parametrize("share", [-0.9, -0.5, -0.1, 0.0, 0.3, 0.9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_both_bounds_count_the_step_is_the_best_allowed_one(share, sign):
    """Reward against cost (sign 1) and with it (-1), from within the limit and from beyond it."""
    found, x = local_step(G, sign * B, share * REACH)
    assert found.case == cpo.BOTH
    assert kl(x) <= MAX_KL * (1 + 1e-3) and sign * B @ x + share * REACH <= 1e-5
    np.testing.assert_allclose(G @ x, best_by_force(G, sign * B, share * REACH), rtol=2e-2)


def test_the_price_is_the_reward_that_a_looser_limit_would_buy():
    at = lambda c: G @ local_step(G, B, c * REACH)[1]
    gain = (at(0.2 - 0.01) - at(0.2 + 0.01)) / (0.02 * REACH)
    np.testing.assert_allclose(local_step(G, B, 0.2 * REACH)[0].multiplier, gain, rtol=1e-2)
    free, _ = local_step(G, -B, -0.5 * REACH)  # the best step of reward also lowers the cost
    assert free.multiplier == 0.0


def test_a_limit_beyond_the_trust_region_is_left_out():
    found, x = local_step(G, B, -1.5 * REACH)
    assert found.case == cpo.UNCONSTRAINED and found.multiplier == 0.0
    np.testing.assert_allclose(G @ x, (POINTS @ G).max(), rtol=1e-3)
    np.testing.assert_allclose(kl(x), MAX_KL, rtol=1e-4)


def test_out_of_reach_the_step_lowers_the_cost_as_far_as_it_can():
    found, x = local_step(G, B, 1.5 * REACH)
    assert found.case == cpo.RECOVERY and found.along_reward == 0.0
    np.testing.assert_allclose(B @ x, (POINTS @ B).min(), rtol=1e-3)
    np.testing.assert_allclose(kl(x), MAX_KL, rtol=1e-4)


@pytest.mark.parametrize("c", [-0.1, 0.0, 0.1])
def test_without_a_cost_gradient_it_is_trpo(c):
    found, x = local_step(G, 0.0 * B, c)
    assert found.case == cpo.UNCONSTRAINED
    np.testing.assert_allclose(G @ x, (POINTS @ G).max(), rtol=1e-3)


def test_reward_that_is_cost_stops_at_the_limit():
    """g parallel to b: the step that is left is the shortest one onto the limit."""
    found, x = local_step(B, B, 0.5 * REACH)
    assert found.case == cpo.BOTH
    np.testing.assert_allclose(B @ x, -0.5 * REACH, rtol=1e-2)


def test_random_problems_against_brute_force():
    rng = np.random.default_rng(0)
    cases = set()
    for _ in range(40):
        g, b, c = rng.normal(size=2), rng.normal(size=2), 0.2 * rng.normal()
        found, x = local_step(g, b, c)
        cases.add(int(found.case))
        assert kl(x) <= MAX_KL * (1 + 1e-3)
        if found.case == cpo.RECOVERY:
            assert (POINTS @ b).min() + c > 0
            np.testing.assert_allclose(b @ x, (POINTS @ b).min(), rtol=1e-3)
        else:
            assert b @ x + c <= 1e-4
            assert g @ x >= best_by_force(g, b, c) - 2e-3 * np.abs(POINTS @ g).max()
    assert cases == {cpo.UNCONSTRAINED, cpo.BOTH, cpo.RECOVERY}


def test_conjugate_gradients_solve_a_known_system():
    rng = np.random.default_rng(1)
    root = rng.normal(size=(8, 8))
    matrix, x = jnp.asarray(root @ root.T + np.eye(8), jnp.float32), rng.normal(size=8)
    b = matrix @ jnp.asarray(x, jnp.float32)
    solve = jax.jit(lambda b, steps: cpo.conjugate_gradient(lambda v: matrix @ v, b, steps))
    np.testing.assert_allclose(solve(b, 20), x, rtol=1e-3, atol=1e-3)
    far = np.abs(solve(b, 2) - x).max()
    assert far > 1e-2  # two iterations are not enough: they do the work
    np.testing.assert_array_equal(solve(jnp.zeros(8), 20), 0.0)


# ---- the line search along x from 0 to 1: reward, cost linear, KL x^2 / 2

CONFIG = ConstraintConfig(max_kl=0.02, backtrack=0.5, backtracks=10)


def search(slope=1.0, price=0.5, excess=-10.0, case=cpo.BOTH, config=CONFIG):
    measure = lambda x: (slope * x[0], price * x[0], 0.5 * x[0] ** 2)
    one = jnp.ones(1)
    end, share = cpo.search_line(measure, 0.0 * one, one, case, excess, config)
    assert float(end[0]) == float(share)
    return float(share)


def test_the_line_search_shortens_until_the_kl_fits():
    assert search() == 0.125  # 0.25^2 / 2 > 0.02 >= 0.125^2 / 2


def test_the_line_search_checks_the_cost_against_the_room_that_is_left():
    assert search(excess=-0.02) == 0.03125  # 0.5 x <= 0.02
    assert search(excess=0.02) == 0.0  # beyond the limit the cost must not rise ...
    assert search(price=-0.5, excess=0.02) == 0.125  # ... but may fall


def test_only_a_recovery_may_lose_reward():
    assert search(slope=-1.0) == 0.0
    assert search(slope=-1.0, price=-0.5, excess=0.1, case=cpo.RECOVERY) == 0.125


def test_broken_numbers_are_no_step():
    assert search(slope=np.nan) == 0.0
