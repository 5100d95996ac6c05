"""The risk critic: known Q_risk on a chain, what its batches hold, and that it learns online."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import RiskCriticConfig
from farl_jax.data.dataset import from_rollout
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.nn.networks import DoubleCritic, GaussianPolicy
from farl_jax.safety import risk_critic
from farl_jax.types import Normalizer
from farl_jax.world_model.latent import RISK_START
from tests.parameters import random_parameters
from tests.toy import make_toy

CONFIG = RiskCriticConfig(
    steps=600, batch=64, learning_rate=3e-3, target_rate=0.05, chunk=50, gamma_risk=0.8
)
CRITIC, POLICY = DoubleCritic(16, 1), GaussianPolicy(1, 8, 1, -1.0)
RINGS = dataclasses.replace(
    CONFIG, transitions=64, failing_transitions=64, transitions_per_rollout=32
)


def policy_parameters(size):
    return jax.tree.map(jnp.asarray, random_parameters(POLICY, np.zeros((1, size))))


def test_a_failing_step_is_worth_one_whatever_follows():
    failure, terminated = jnp.array([1, 1, 0, 0], bool), jnp.array([0, 1, 0, 1], bool)
    got = risk_critic.risk_target(failure, terminated, jnp.full(4, 0.9), 0.8)
    np.testing.assert_allclose(got, [1.0, 1.0, 0.72, 0.0], rtol=1e-6)


def test_the_gate_sees_the_larger_of_two_and_a_clipped_action():
    obs, action = jnp.ones((3, 2)), jnp.array([[0.5], [1.0], [7.0]])
    params = random_parameters(CRITIC, obs, action)
    both = jax.nn.sigmoid(CRITIC.apply(params, obs, jnp.clip(action, -1, 1)) + RISK_START)
    got = risk_critic.make_critic_risk(CRITIC, params)(obs, action).risk
    np.testing.assert_allclose(got, both.max(axis=0), rtol=1e-6)
    assert got[1] == got[2] and np.abs(both[0] - both[1]).min() > 1e-4


CORNERS = [[-1, -1], [-1, 1], [1, 1], [1, -1]]


def chain():
    """x -> y -> z -> x for ever, z failing; and w, from where success follows, as in the data."""
    states, rng = np.float32(CORNERS), np.random.default_rng(0)
    now = np.tile([0, 1, 2, 3], 50)
    return {
        "obs": states[now],
        "next_obs": states[np.array([1, 2, 0, 0])[now]],
        "action": rng.uniform(-1, 1, (200, 1)).astype(np.float32),
        "failure": now == 2,
        "terminated": now == 3,
        "episode": np.zeros(200, np.int32),
    }


def test_the_chains_risk_is_known():
    """Failure at z does not end the episode: Q(z) = 1, not 1 + gamma Q(x); then gamma, gamma^2."""
    fit = risk_critic.make_fit_offline(CRITIC, POLICY, CONFIG)
    data, losses = risk_critic.to_risk_data(chain()), []
    params = fit(
        jax.random.key(0), policy_parameters(2), data, lambda step, row: losses.append(row)
    )
    risk = risk_critic.predict_risk(CRITIC, params, jnp.float32(CORNERS), jnp.zeros((4, 1)))
    np.testing.assert_allclose(risk, [0.64, 0.8, 1.0, 0.0], atol=0.03)
    assert len(losses) >= 5 and losses[-1]["loss"] < losses[0]["loss"]


@pytest.fixture(scope="module")
def steps():
    """30 steps of 16 walkers that are drawn to the cliff."""
    env = make_toy(16)

    def act(memory, state, key):
        return memory, plain_decision(jax.random.uniform(key, (16, 1), minval=-1.0, maxval=1.3))

    roll = jax.jit(lambda key: unroll(env, act, None, env.reset(key), key, 30)[2])
    return roll(jax.random.key(0))


@pytest.fixture(scope="module")
def demos(steps):
    return risk_critic.to_risk_data(from_rollout(steps))


def test_a_batch_holds_its_share_of_failing_steps(demos):
    batch = risk_critic.demo_batch(demos, jax.random.key(1), 50, 0.3)
    np.testing.assert_array_equal(batch["failure"], np.arange(50) < 15)
    assert batch["obs"].shape == (50, 2) and set(batch) == set(risk_critic.FIELDS)


def test_one_kind_stands_in_for_the_other():
    data = chain()
    for failure in (False, True):
        only = risk_critic.to_risk_data(data | {"failure": np.full(200, failure)})
        batch = risk_critic.demo_batch(only, jax.random.key(1), 10, 0.3)
        assert (batch["failure"] == failure).all() and batch["obs"].any(axis=1).all()


def test_half_a_batch_is_the_runs_own_once_there_is_any(steps, demos):
    init, observe, *_ = risk_critic.make_risk_learning(CRITIC, POLICY, RINGS, (2, 1))
    learning = init(random_parameters(CRITIC, np.zeros((1, 2)), np.zeros((1, 1))))
    shifted = Normalizer(jnp.full(2, -100.0), jnp.ones(2))  # marks the run's own steps
    own = lambda batch: np.asarray(batch["obs"][:, 0] > 50)
    draw = jax.jit(
        lambda learning: risk_critic.mixed_batch(learning, jax.random.key(1), demos, RINGS)
    )
    batch = draw(learning)
    assert not own(batch).any() and int(batch["failure"].sum()) == 2 * round(0.3 * 32)

    calm = steps.replace(failure=jnp.zeros_like(steps.failure))
    learning = observe(learning, shifted, calm, jax.random.key(2))
    assert int(learning.safe.stored) == 32 and int(learning.failing.stored) == 0
    batch = draw(learning)  # no failure of its own yet: demonstrations'
    assert own(batch).sum() == 22 and int(batch["failure"].sum()) == 20

    learning = observe(learning, shifted, steps, jax.random.key(3))
    batch = draw(learning)
    assert own(batch).sum() == 32 and int(batch["failure"][own(batch)].sum()) == 10
    assert int(batch["failure"].sum()) == 20 and int(learning.safe.stored) == 64


def test_steps_at_which_the_simulation_gave_up_are_left_out(steps):
    init, observe, *_ = risk_critic.make_risk_learning(CRITIC, POLICY, RINGS, (2, 1))
    learning = init(random_parameters(CRITIC, np.zeros((1, 2)), np.zeros((1, 1))))
    broken = steps.replace(diverged=jnp.ones_like(steps.diverged))
    learning = observe(learning, Normalizer(jnp.zeros(2), jnp.ones(2)), broken, jax.random.key(0))
    assert int(learning.safe.stored) == int(learning.failing.stored) == 0


def test_it_learns_online_what_the_run_shows(steps, demos):
    init, observe, learn, _ = risk_critic.make_risk_learning(CRITIC, POLICY, RINGS, (2, 1))
    params = random_parameters(CRITIC, np.zeros((1, 2)), np.zeros((1, 1)))
    identity, policy = Normalizer(jnp.zeros(2), jnp.ones(2)), policy_parameters(2)
    learning = observe(init(params), identity, steps, jax.random.key(1))
    for i in range(8):
        learning = learn(learning, jax.random.key(i), demos, (policy, None))
    batch = risk_critic.demo_batch(demos, jax.random.key(9), 256, 0.3)
    risk = risk_critic.predict_risk(
        CRITIC, learning.learnt["risk_critic"], batch["obs"], batch["action"]
    )
    failing = np.asarray(batch["failure"])
    assert risk[failing].mean() > risk[~failing].mean() + 0.3
