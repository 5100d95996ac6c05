"""Ranges the networks promise (std, mean, SimNorm), independent critics, exact two-hot values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import WorldModelConfig
from farl_jax.nn.networks import DoubleCritic, GaussianPolicy, TransitionModel, Value
from farl_jax.world_model.latent import (
    LatentModel,
    mish,
    simnorm,
    symexp,
    symlog,
    two_hot,
    two_hot_mean,
)
from tests.parameters import random_parameters

FLOOR = float(np.log(0.2))
WILD = (1e3 * np.random.default_rng(9).normal(size=(64, 3))).astype(np.float32)  # far outside data


@pytest.fixture(scope="module")
def policy():
    net = GaussianPolicy(action_size=2, width=16, depth=2, min_log_std=FLOOR)
    return net, jax.jit(net.init)(jax.random.key(0), WILD[:1])


def test_mean_and_std_keep_their_ranges_on_any_input(policy):
    net, params = policy
    mean, log_std = net.apply(params, WILD)
    assert mean.shape == log_std.shape == (64, 2)
    assert np.abs(mean).max() <= 1.0 and np.abs(mean).max() > 0.99
    assert log_std.min() >= FLOOR - 1e-6 and log_std.max() <= 0.0
    assert log_std.min() < FLOOR + 0.01 and log_std.max() > -0.01  # both ends are reached


def test_a_fresh_policy_is_nearly_still_with_half_way_std(policy):
    net, params = policy
    mean, log_std = net.apply(params, jnp.zeros((1, 3)))
    np.testing.assert_allclose(mean, 0.0, atol=0.05)
    np.testing.assert_allclose(log_std, FLOOR / 2, atol=0.05)


def test_std_depends_on_the_state(policy):
    net, params = policy
    _, log_std = net.apply(params, jnp.array([[1.0, 0, 0], [0, 0, 3.0]]))
    assert np.abs(log_std[0] - log_std[1]).min() > 1e-4


def test_a_policy_may_see_the_change_between_the_frames():
    """A linear one that reads the change of number 4 alone: tanh(gain (now - before))."""
    net = GaussianPolicy(action_size=1, width=1, depth=0, min_log_std=FLOOR, motion_gain=30.0)
    obs = np.random.default_rng(1).normal(size=(5, 39)).astype(np.float32)
    kernel = np.zeros((39 + 18, 2), np.float32)
    kernel[39 + 4, 0] = 1.0
    params = {"params": {"MLP_0": {"Dense_0": {"kernel": kernel, "bias": np.zeros(2)}}}}
    mean, _ = net.apply(params, obs)
    np.testing.assert_allclose(mean[:, 0], np.tanh(30.0 * (obs[:, 4] - obs[:, 22])), rtol=1e-4)


def test_each_critic_head_has_its_own_parameters_and_gradient():
    net = DoubleCritic(width=16, depth=1)
    obs, action = WILD[:8] / 1e3, jnp.ones((8, 2))

    @jax.jit
    def run():
        params = net.init(jax.random.key(0), obs, action)
        gradient = jax.grad(lambda p: net.apply(p, obs, action)[0].sum())(params)
        return net.apply(params, obs, action), gradient

    q, gradient = run()
    assert q.shape == (2, 8)
    assert np.abs(q[0] - q[1]).max() > 1e-2
    for leaf in jax.tree.leaves(gradient):
        assert np.abs(leaf[0]).max() > 0
        np.testing.assert_array_equal(leaf[1], 0.0)


def test_values_are_linear_outputs_that_go_negative():
    net = Value(width=16, depth=1)
    value = net.apply(random_parameters(net, WILD), WILD)
    assert value.shape == (64,) and value.min() < -1 < 1 < value.max()


def test_the_transition_model_predicts_a_change():
    net = TransitionModel(width=16, depth=1)
    params = jax.eval_shape(net.init, jax.random.key(0), WILD, jnp.zeros((64, 1)))
    still = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    np.testing.assert_array_equal(net.apply(still, WILD, jnp.ones((64, 1))), WILD)


def test_simnorm_groups_are_softmaxes_of_their_own_group(no_rank_promotion):
    x = jnp.asarray(np.random.default_rng(0).normal(0, 20, (5, 12)))
    groups = np.asarray(simnorm(x, 4)).reshape(5, 3, 4)
    np.testing.assert_allclose(groups.sum(-1), 1.0, rtol=1e-5)
    assert groups.min() >= 0
    other = np.asarray(simnorm(x.at[:, 4:8].add(jnp.arange(4.0)[None]), 4)).reshape(5, 3, 4)
    np.testing.assert_array_equal(other[:, [0, 2]], groups[:, [0, 2]])
    np.testing.assert_allclose(
        simnorm(jnp.log(jnp.array([1.0, 3.0, 2.0, 2.0])), 2), [0.25, 0.75, 0.5, 0.5], rtol=1e-6
    )


def test_encoded_and_imagined_latents_are_simnormed():
    config = WorldModelConfig(encoder="mlp", latent=16, simnorm_group=4, width=16)
    model = LatentModel(config, 3, 2)

    params = random_parameters(model, WILD, np.ones((64, 2)))

    @jax.jit
    def run(obs, action):
        z = model.apply(params, obs, method="encode")
        return z, *(model.apply(params, z, action, method=name) for name in ("next", "q"))

    z, following, q = run(WILD, jnp.ones((64, 2)))
    for latent in (z, following):
        groups = np.asarray(latent).reshape(64, 4, 4)
        np.testing.assert_allclose(groups.sum(-1), 1.0, rtol=1e-5)
    assert q.shape == (2, 64, config.bins)


def test_symlog_by_hand_and_its_inverse():
    by_hand = symlog(jnp.array([np.e - 1, 1 - np.e, 0.0]))
    np.testing.assert_allclose(by_hand, [1, -1, 0], rtol=1e-6)
    x = np.concatenate([-np.logspace(-4, 4, 40), [0.0], np.logspace(-4, 4, 40)]).astype(np.float32)
    np.testing.assert_allclose(symexp(symlog(x)), x, rtol=1e-4)
    small = np.linspace(-10, 10, 41, dtype=np.float32)
    np.testing.assert_allclose(symlog(symexp(small)), small, rtol=1e-5)


def test_mish_and_its_slope_are_those_of_the_definition():
    x = np.concatenate([np.linspace(-8, 8, 65), [-200, -50, 19.9, 20.1, 50, 200]])
    both = jax.jit(jax.vmap(jax.value_and_grad(mish)))(x.astype(np.float32))
    soft = np.logaddexp(0, x)
    slope = np.tanh(soft) + x * (1 - np.tanh(soft) ** 2) * np.exp(-np.logaddexp(0, -x))
    np.testing.assert_allclose(both[0], x * np.tanh(soft), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(both[1], slope, rtol=1e-4, atol=1e-6)


def test_two_hot_by_hand():
    # five points -2 .. 2 of symlog space; symlog(e^.25 - 1) = .25 lies between the third and fourth
    got = two_hot(jnp.array([np.expm1(0.25), 0.0, -np.expm1(1.5)]), 5, 2.0)
    expected = [[0, 0, 0.75, 0.25, 0], [0, 0, 1, 0, 0], [0.5, 0.5, 0, 0, 0]]
    np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize(("bins", "limit"), [(101, 10.0), (11, 3.0)])
def test_two_hot_mean_recovers_every_value_of_the_support(bins, limit):
    edge = float(np.expm1(limit))
    inside = np.sinh(np.linspace(-0.97, 0.97, 61) * np.arcsinh(edge))
    values = jnp.asarray(np.concatenate([[-edge, edge, 0.0, 1e-3, -1e-3], inside]), jnp.float32)
    weights = np.asarray(jax.jit(two_hot, static_argnums=(1, 2))(values, bins, limit))
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-6)
    assert weights.min() >= 0 and (weights > 1e-6).sum(-1).max() <= 2
    got = two_hot_mean(np.log(np.maximum(weights, 1e-30)), limit)
    np.testing.assert_allclose(got, values, rtol=2e-4, atol=1e-5)


def test_two_hot_clips_what_lies_outside():
    edge = np.expm1(2.0)
    weights = two_hot(jnp.array([10 * edge, -10 * edge]), 5, 2.0)
    np.testing.assert_allclose(weights, [[0, 0, 0, 0, 1], [1, 0, 0, 0, 0]], atol=1e-6)


def test_a_fresh_two_hot_head_says_zero():
    np.testing.assert_allclose(two_hot_mean(jnp.zeros((3, 101)), 10.0), 0.0, atol=1e-5)
