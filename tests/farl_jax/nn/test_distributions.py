"""The Gaussian's density and entropy are SciPy's; its samples have its moments, unclipped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from farl_jax.nn import distributions

RNG = np.random.default_rng(0)
MEAN, LOG_STD = RNG.normal(size=(5, 3)), RNG.uniform(-4, 0, size=(5, 3))


@pytest.mark.parametrize("distance", [0.0, 1.0, 8.0])  # in standard deviations
def test_log_prob_is_scipys_also_far_in_the_tail(distance, no_rank_promotion):
    action = MEAN + distance * np.exp(LOG_STD)
    expected = stats.norm.logpdf(action, MEAN, np.exp(LOG_STD)).sum(-1)
    got = distributions.log_prob(*map(jnp.asarray, (action, MEAN, LOG_STD)))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


def test_entropy_is_scipys(no_rank_promotion):
    expected = stats.norm.entropy(MEAN, np.exp(LOG_STD)).sum(-1)
    np.testing.assert_allclose(distributions.entropy(jnp.asarray(LOG_STD)), expected, rtol=1e-5)


def test_density_of_two_actions_by_hand():
    # standard deviation 1/2 twice, one action a standard deviation off: -log(pi / 2) - 1/2
    got = distributions.log_prob(
        jnp.array([0.5, -1.0]), jnp.array([0.0, -1.0]), jnp.log(jnp.array([0.5, 0.5]))
    )
    np.testing.assert_allclose(got, -np.log(np.pi / 2) - 0.5, rtol=1e-6)


def test_samples_have_the_moments_and_leave_the_action_range():
    mean, log_std = jnp.array([0.9, -0.3]), jnp.log(jnp.array([0.5, 0.05]))
    every = jnp.broadcast_to(mean, (40_000, 2)), jnp.broadcast_to(log_std, (40_000, 2))
    draws = np.asarray(distributions.sample(jax.random.key(0), *every))
    std = np.array([0.5, 0.05])
    np.testing.assert_allclose(draws.mean(0), mean, atol=5 * std.max() / 200)
    np.testing.assert_allclose(draws.std(0), std, rtol=0.03)
    assert abs(np.corrcoef(draws.T)[0, 1]) < 0.03  # dimensions are independent
    assert abs((draws[:, 0] > 1.0).mean() - stats.norm.sf(0.2)) < 0.02  # not clipped
    entropy = -np.asarray(distributions.log_prob(draws, *every)).mean()
    np.testing.assert_allclose(entropy, distributions.entropy(log_std), atol=0.03)


def test_kl_divergence_by_hand_and_against_samples():
    one, two = jnp.zeros((1,)), jnp.full((1,), jnp.log(2.0))
    # N(0, 1) from N(1, 2^2): log 2 + (1 + 1) / 8 - 1 / 2
    got = distributions.kl_divergence(one, one, one + 1.0, two)
    np.testing.assert_allclose(got, np.log(2) + 0.25 - 0.5, rtol=1e-6)
    pair = (MEAN[0], LOG_STD[0]), (MEAN[0] + 0.01 * RNG.normal(size=3), LOG_STD[0] + 0.1)
    action = RNG.normal(MEAN[0], np.exp(LOG_STD[0]), size=(200_000, 3))
    density = [stats.norm.logpdf(action, m, np.exp(s)).sum(-1) for m, s in pair]
    expected = (density[0] - density[1]).mean()
    got = distributions.kl_divergence(*(jnp.asarray(x) for x in (*pair[0], *pair[1])))
    np.testing.assert_allclose(got, expected, rtol=0.05)
    assert distributions.kl_divergence(one, two, one, two) == 0.0
