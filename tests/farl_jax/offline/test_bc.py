"""Cloning recovers a linear controller, keeps what held-out data likes best, varies members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import BCConfig
from farl_jax.data.dataset import DeviceData, pad_to_power_of_two
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.offline import bc

POLICY = GaussianPolicy(action_size=2, width=32, depth=1, min_log_std=float(np.log(0.2)))
CONFIG = BCConfig(members=2, steps=600, batch=64, learning_rate=2e-3)
BEST_POSSIBLE = 2 * (np.log(0.2) + 0.5 * np.log(2 * np.pi))  # exact actions at the floor of std


def controller(obs):
    return np.stack([0.6 * obs[:, 0] - 0.2 * obs[:, 1], 0.4 * obs[:, 2]], -1).astype(np.float32)


def device(obs, action):
    fields = {"obs": obs, "action": action}
    padded = {k: jnp.asarray(pad_to_power_of_two(v)) for k, v in fields.items()}
    return DeviceData(fields=padded, size=jnp.asarray(len(obs), jnp.int32))


@pytest.fixture(scope="module")
def clones():
    """(observations, what fits to the controller and to held-out opposite actions return)."""
    rng = np.random.default_rng(0)
    obs, new = (rng.uniform(-1, 1, (n, 3)).astype(np.float32) for n in (800, 200))
    fit = bc.make_fit(POLICY, CONFIG)
    training = device(obs, controller(obs))
    good = fit(jax.random.key(0), training, device(new, controller(new)))
    opposed = fit(jax.random.key(0), training, device(new, -controller(new)))
    return new, good, opposed


@jax.jit
def _nll(params, obs, action):
    return jax.vmap(lambda p: bc.negative_log_likelihood(POLICY, p, obs, action).mean())(params)


def test_a_linear_controller_is_cloned(clones):
    new, (params, nll), _ = clones
    assert nll.shape == (2,) and nll.max() < BEST_POSSIBLE + 0.25
    mean, log_std = jax.vmap(POLICY.apply, in_axes=(0, None))(params, new)
    assert np.abs(mean - controller(new)).max() < 0.25
    assert np.abs(mean - controller(new)).mean() < 0.04
    assert log_std.mean() < np.log(0.25)  # nothing is left to be unsure about


def test_the_reported_likelihood_is_that_of_the_kept_weights_without_padding(clones):
    new, (params, nll), (opposed, opposed_nll) = clones
    np.testing.assert_allclose(_nll(params, new, controller(new)), nll, rtol=1e-4)
    np.testing.assert_allclose(_nll(opposed, new, -controller(new)), opposed_nll, rtol=1e-4)


def test_the_best_held_out_weights_are_kept_not_the_last(clones):
    """Held-out actions are the opposite: every round of training makes them less likely."""
    new, (trained, _), (kept, _) = clones
    best, last = (_nll(params, new, -controller(new)) for params in (kept, trained))
    assert (best < last - 1.0).all(), (best, last)


def test_members_start_and_end_different(clones):
    _, (params, _), _ = clones
    for leaf in jax.tree.leaves(params):
        assert np.abs(leaf[0] - leaf[1]).max() > 1e-3
