"""What learnt policies do in the environment during the offline phase, on the toy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.agent import Networks
from farl_jax.config import DemosConfig, FarlConfig, NetworkConfig
from farl_jax.data.dataset import num_episodes
from farl_jax.data.practice import Practice
from farl_jax.data.rollout import unroll
from farl_jax.offline.pipeline import exploring, practise, rescued
from farl_jax.types import Normalizer
from tests.parameters import random_parameters
from tests.toy import LIMIT, make_toy

ENVS = 256
CONFIG = FarlConfig(network=NetworkConfig(width=16, depth=1))
TOY = make_toy(ENVS)
NETS = Networks.create(CONFIG, TOY.observation_size, TOY.action_size)
NORMALIZER = Normalizer(jnp.array([0.5, 0.5]), jnp.array([0.3, 0.3]))
POLICIES = tuple(random_parameters(NETS.policy, np.zeros((1, 2)), seed=s) for s in range(2))


@pytest.fixture(scope="module")
def practised():
    """(steps that the task policy has, [N]; steps of one episode's length [T, N])."""

    @jax.jit
    def roll(key):
        controller, left = rescued(TOY, NETS, NORMALIZER)(POLICIES, key)
        return left, unroll(TOY, controller, left, TOY.reset(key), key, LIMIT)[2]

    return jax.device_get(roll(jax.random.key(0)))


def test_recovered_steps_carry_recoverys_action_and_the_others_an_explored_one(practised):
    left, steps = practised
    mean = lambda params: NETS.policy.apply(params, NORMALIZER(steps.obs))[0]
    apart = [np.abs(steps.decision.action - mean(params)).squeeze(-1) for params in POLICIES]
    recovers = np.arange(LIMIT)[:, None] >= left
    assert 0.1 < recovers.mean() < 0.4
    assert apart[1][recovers].max() < 1e-5 < np.quantile(apart[1][~recovers], 0.01)
    assert np.quantile(apart[0][~recovers], 0.01) > 1e-5  # a sample, not the mean


def test_half_of_the_rows_never_hand_over_and_the_others_do_at_any_step(practised):
    left, _ = practised
    assert abs((left >= LIMIT).mean() - 0.5) < 3 * (0.25 / ENVS) ** 0.5
    assert set(left[left < LIMIT].tolist()) == set(range(LIMIT))


def test_practice_takes_the_members_in_turn_and_counts_what_they_do():
    """Two batches of episodes, each of one member: its actions are explored about its own mean."""
    small, said = make_toy(8), []
    behave, key = exploring(NETS, NORMALIZER), jax.random.key(0)
    report = lambda stage, metrics: said.append((stage, metrics))
    (own,), practice = practise(small, behave, POLICIES, 16, CONFIG, key, report)
    assert practice == Practice.of(own) and practice.steps == 2 * 8 * LIMIT
    assert practice.episodes == num_episodes(own) >= 16 and practice.failure_episodes > 0
    assert said == [("own_failures", {k: float(v) for k, v in vars(practice).items()})]
    halves = np.split(np.arange(practice.steps), 2)
    assert not set(own["episode"][halves[0]]) & set(own["episode"][halves[1]])
    noise = np.stack([_noise(params, own) for params in POLICIES])
    for member, rows in enumerate(halves):
        bound = 4 / len(rows) ** 0.5
        own_noise, others = noise[member, rows], noise[1 - member, rows]
        assert abs(own_noise.mean()) < bound and abs(own_noise.std() - 1) < bound
        assert abs(others.mean()) > 3 * bound


def _noise(params, data):
    """What an exploring policy would have drawn to act as it did, in standard deviations."""
    mean, log_std = NETS.policy.apply(params, NORMALIZER(data["obs"]))
    return np.asarray((data["action"] - mean) / np.exp(log_std))[:, 0]


def test_without_interaction_nobody_acts():
    config = dataclasses.replace(CONFIG, demos=DemosConfig(interaction="none"))
    nobody = practise(TOY, None, POLICIES, 16, config, jax.random.key(0), None)
    assert nobody == ((), Practice())
