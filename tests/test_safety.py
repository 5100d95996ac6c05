"""C_H and the gate on a model whose answers are known by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax import distributions
from farl_jax.config import FarlConfig, NetworkConfig, SafetyConfig, WorldModelConfig
from farl_jax.offline import Networks
from farl_jax.safety import (
    Gate,
    GateMemory,
    calibrate_max_risk,
    discounted_risk,
    failure_probabilities,
    gated_controller,
    recover,
)
from farl_jax.types import Normalizer
from tests.toy import make_toy


class CliffModel:
    """The cliff walker as a perfect world model: z is x, failing when the action leads over 0.9."""

    @staticmethod
    def apply(params, *args, method):
        if method == "encode":
            return args[0]
        if method == "decode":
            return args[0]
        z, action = args
        moved = z + 0.1 * action
        if method == "next":
            return moved
        return jnp.where(moved[..., 0] > 0.9, 40.0, -40.0)  # failure logit: certain either way


def test_horizon_cost_equals_hand_sum():
    p = jnp.array([[0.1, 0.5], [0.2, 0.0], [0.4, 1.0], [0.8, 0.25]])
    got = discounted_risk(p, jnp.asarray(2), jnp.asarray(0.9))
    np.testing.assert_allclose(
        got, [0.1 + 0.9 * 0.2 + 0.81 * 0.4, 0.5 + 0.81], rtol=1e-6
    )


def test_known_failure_time():
    """From x = 0.55 at full speed right the walker crosses 0.9 with its 4th action: p_3 is the first 1."""
    p = failure_probabilities(
        CliffModel, None, jnp.zeros(()), jnp.ones_like, jnp.array([[0.55]]), jnp.ones((1, 1)), 5
    )
    np.testing.assert_allclose(p[:, 0], [0, 0, 0, 1, 1, 1], atol=1e-6)
    for horizon in range(6):
        by_hand = sum(0.95**i for i in range(3, horizon + 1))
        cost = discounted_risk(p, jnp.asarray(horizon), jnp.asarray(0.95))[0]
        np.testing.assert_allclose(cost, by_hand, atol=1e-5)


def test_first_action_is_the_one_about_to_be_taken():
    """Walking left is safe even beside the cliff; the imagined continuation is the task policy's."""
    left, right = -jnp.ones((1, 1)), jnp.ones((1, 1))
    roll = lambda a: failure_probabilities(
        CliffModel, None, jnp.zeros(()), jnp.zeros_like, jnp.array([[0.85]]), a, 3
    )[:, 0]
    np.testing.assert_allclose(roll(left), [0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(roll(right), [1, 1, 1, 1], atol=1e-6)


def test_horizon_sweep_compiles_once():
    count = 0

    @jax.jit
    def cost(p, horizon, gamma):
        nonlocal count
        count += 1
        return discounted_risk(p, horizon, gamma)

    p = jnp.ones((11, 3))
    for horizon in range(11):
        got = cost(p, jnp.asarray(horizon), jnp.asarray(0.9))
        np.testing.assert_allclose(got, sum(0.9**i for i in range(horizon + 1)), rtol=1e-5)
    assert count == 1


def test_recovery_lasts_and_ends():
    risky = jnp.array([True, False, False, False, True])
    recovering = jnp.array([0, 2, 3, 0, 5])
    acts, length = recover(risky, recovering, min_steps=3, max_steps=5)
    np.testing.assert_array_equal(acts, [True, True, False, False, False])
    np.testing.assert_array_equal(length, [1, 3, 0, 0, 0])


def _gated(max_risk):
    config = FarlConfig(
        network=NetworkConfig(width=16, depth=1),
        world_model=WorldModelConfig(latent=16, width=16),
        safety=SafetyConfig(max_recovery_steps=1000),
    )
    env = make_toy(4)
    nets = Networks.create(config, env.observation_size, env.action_size)
    key = jax.random.key(0)
    obs = jnp.zeros((1, 2))
    task, recovery = nets.policy.init(key, obs), nets.policy.init(jax.random.key(1), obs)
    world = nets.latent.init(key, obs, jnp.zeros((1, 1)))
    identity = Normalizer(jnp.zeros(2), jnp.ones(2))
    controller = gated_controller(
        (nets.policy, nets.latent),
        task,
        (recovery, world, identity, jnp.zeros(())),
        Gate.create(5, 0.95, max_risk),
        config.safety,
        explore=True,
        max_horizon=5,
    )
    state = env.reset(jax.random.key(2))
    memory, decision = controller(GateMemory.create(4), state, jax.random.key(3))
    return nets, task, recovery, state, memory, decision


def test_infinite_threshold_never_recovers_and_keeps_the_noise():
    nets, task, _, state, memory, decision = _gated(jnp.inf)
    mean, log_std = nets.policy.apply(task, state.obs)
    expected = distributions.sample(jax.random.key(3), mean, log_std)
    np.testing.assert_array_equal(decision.action, expected)
    assert not decision.intervened.any() and (memory.recovering == 0).all()


def test_negative_threshold_always_recovers_by_the_mean():
    nets, task, recovery, state, memory, decision = _gated(-1.0)
    np.testing.assert_array_equal(decision.action, nets.policy.apply(recovery, state.obs)[0])
    assert decision.intervened.all() and (memory.recovering == 1).all()
    mean, log_std = nets.policy.apply(task, state.obs)
    np.testing.assert_allclose(
        decision.log_prob, distributions.log_prob(decision.action, mean, log_std), rtol=1e-6
    )


@pytest.mark.parametrize("target_rate", [0.1, 0.3])
def test_calibration_takes_the_most_cautious_allowed_threshold(target_rate):
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(40), 50)
    failure = np.zeros(2000, bool)
    cost = rng.random(2000) * 0.5
    onset = np.arange(20) * 100 + 30  # every second episode fails at step 30 ...
    failure[onset] = True
    cost[onset - 3] = 2.0  # ... and is foreseen 3 steps before
    chosen = calibrate_max_risk(
        cost, failure, episode, SafetyConfig(target_trigger_rate=target_rate, lead_time=2)
    )
    assert chosen["recall"] == 1.0 and chosen["onsets"] == 20
    assert abs(chosen["trigger_rate"] - target_rate) < 2e-3
    unseen = calibrate_max_risk(
        np.where(cost == 2.0, 0.0, cost * (episode % 2)), failure, episode, SafetyConfig()
    )
    assert unseen["recall"] == 0.0
