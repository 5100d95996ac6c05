"""MPPI: known optima on a linear model, the limits of its weights, warm starts, and its cost."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.agent import Agent
from farl_jax.config import MPPIConfig, WorldModelConfig
from farl_jax.safety.mppi import (
    imagined_value,
    mppi_recovery,
    plan,
    plan_where,
    refine,
    start_plans,
)
from farl_jax.types import Normalizer
from farl_jax.world_model.latent import LatentModel, two_hot_mean
from tests.parameters import random_parameters

CONFIG = MPPIConfig(samples=64, elites=8, iterations=4, horizon=3)
TARGET = jnp.array([[0.6, -0.3], [0.2, 0.5], [-0.4, 0.1]])


def noise(config, seed=0, size=2):
    shape = (config.iterations, config.horizon, config.samples, size)
    return jax.random.normal(jax.random.key(seed), shape)


def away_from_target(actions):
    """-|x_H - x*|^2 for x_H = sum a_i under x' = x + a, plus what makes each step's part unique."""
    return -((actions - TARGET[:, None]) ** 2).sum((0, 2))


def test_the_optimum_of_a_linear_model_is_found():
    config = dataclasses.replace(CONFIG, iterations=12, samples=256, elites=16, min_std=0.01)
    found = jax.jit(plan, static_argnums=(0, 3))(
        away_from_target, jnp.zeros((3, 2)), noise(config), config
    )
    np.testing.assert_allclose(found, TARGET, atol=0.06)


def test_an_optimum_beyond_the_limits_is_met_at_the_limit():
    config = dataclasses.replace(CONFIG, iterations=12, samples=256, elites=16, min_std=0.3)
    found = jax.jit(plan, static_argnums=(0, 3))(
        lambda actions: actions.sum((0, 2)), jnp.zeros((3, 2)), noise(config), config
    )
    assert (found > 0.9).all() and (found <= 1.0).all()


def test_a_plan_starts_from_the_mean_it_is_given():
    """One candidate, one iteration: the mean itself; a good mean stays the best of many."""
    one = dataclasses.replace(CONFIG, samples=1, elites=1, iterations=1)
    np.testing.assert_array_equal(plan(away_from_target, TARGET, noise(one), one), TARGET)
    greedy = dataclasses.replace(CONFIG, elites=1)
    np.testing.assert_array_equal(plan(away_from_target, TARGET, noise(greedy), greedy), TARGET)


def test_elites_and_temperature_have_their_limits():
    actions = jnp.linspace(-1, 1, 5)[None, :, None]  # [1, 5, 1]
    values = jnp.array([0.0, 3.0, 1.0, jnp.nan, 2.0])
    of = lambda elites, temperature: refine(
        actions, values, MPPIConfig(elites=elites, temperature=temperature, min_std=0.0)
    )
    mean, std = of(1, 0.5)
    np.testing.assert_allclose([mean[0, 0], std[0, 0]], [-0.5, 0.0], atol=1e-6)
    mean, std = of(3, 0.0)  # -0.5, 1, 0: their plain mean
    np.testing.assert_allclose(mean[0, 0], 1 / 6, rtol=1e-5)
    np.testing.assert_allclose(std[0, 0], np.std([-0.5, 1.0, 0.0]), rtol=1e-5)
    np.testing.assert_allclose(of(3, 1e3)[0][0, 0], -0.5, atol=1e-6)  # the best alone
    weight = np.exp([0.0, -0.5, -1.0])
    by_hand = (weight * [-0.5, 1.0, 0.0]).sum() / weight.sum()
    np.testing.assert_allclose(of(3, 0.5)[0][0, 0], by_hand, rtol=1e-5)
    assert np.isfinite(refine(actions, jnp.full(5, jnp.nan), MPPIConfig(elites=3))[0]).all()


@pytest.mark.parametrize("needed", [[], [4], [0, 2, 3], [6, 1, 5, 0, 3], range(7)])
def test_plans_are_made_where_needed_and_in_no_more_passes_than_that_takes(needed):
    passes = []

    def plan_rows(rows):
        jax.debug.callback(lambda: passes.append(1))
        return 10.0 * rows[:, None, None] + jnp.ones((2, 3, 1))

    mask = np.isin(np.arange(7), list(needed))
    before = -jnp.ones((7, 3, 1))
    after = jax.jit(lambda mask: plan_where(mask, plan_rows, before, 2))(jnp.asarray(mask))
    jax.effects_barrier()
    expected = np.where(mask, 10.0 * np.arange(7) + 1.0, -1.0)
    np.testing.assert_array_equal(after, np.broadcast_to(expected[:, None, None], after.shape))
    assert len(passes) == -(-len(list(needed)) // 2)


WORLD = WorldModelConfig(encoder="mlp", latent=8, simnorm_group=4, width=8, bins=5, train_horizon=4)
MODEL = LatentModel(WORLD, 2, 1)
SMALL = MPPIConfig(samples=8, elites=2, iterations=2, horizon=3, slots=4)


@pytest.fixture(scope="module")
def learnt():
    world = random_parameters(MODEL, np.zeros((1, 2)), np.zeros((1, 1)), seed=3)
    return Agent(
        policy={},
        value={},
        recovery={},
        world_model=jax.tree.map(lambda leaf: jnp.asarray(3 * leaf), world),
        normalizer=Normalizer(jnp.zeros(2), jnp.ones(2)),
        max_risk=jnp.zeros(()),
    )


def test_a_value_is_the_sum_by_hand(learnt):
    rng = np.random.default_rng(0)
    obs, actions = rng.normal(size=2), rng.uniform(-1, 1, (3, 5, 1))

    @jax.jit
    def both(params):
        got = imagined_value(MODEL, params, jnp.asarray(obs), jnp.asarray(actions), 10.0)
        call = lambda name, *args: MODEL.apply(params, *args, method=name)
        number = lambda logits: two_hot_mean(logits, WORLD.bin_limit)
        z, parts = jnp.broadcast_to(call("encode", jnp.asarray(obs)), (5, 8)), []
        for action in actions:
            parts.append((number(call("reward", z, action)), call("failure", z, action)))
            z = call("next", z, action)
        return got, parts, number(call("q", z, call("prior", z)))

    got, parts, q = jax.device_get(both(learnt.world_model))
    by_hand = 0.99**3 * q.mean(axis=0)
    for i, (reward, logit) in enumerate(parts):
        by_hand += 0.99**i * (reward - 10.0 / (1.0 + np.exp(-logit)))
    np.testing.assert_allclose(got, by_hand, rtol=1e-4)


@pytest.fixture(scope="module")
def recover(learnt):
    """(plans, obs, recovering) -> (plans, action)."""
    act = mppi_recovery(MODEL, learnt, SMALL)
    return jax.jit(lambda *args: act(*args, jax.random.key(4)))


def test_planned_only_where_triggered_equals_planned_for_all(recover):
    obs = jnp.asarray(np.random.default_rng(1).normal(size=(6, 2)), jnp.float32)
    plans, some = start_plans(SMALL, 6, 1), jnp.array([0, 1, 0, 1, 1, 0])
    kept, action = recover(plans, obs, some)  # one pass
    everywhere, wanted = recover(plans, obs, jnp.ones(6, jnp.int32))  # two, otherwise placed
    acting = np.asarray(some) > 0
    np.testing.assert_allclose(action[acting], wanted[acting], atol=1e-5)
    np.testing.assert_allclose(kept[acting], everywhere[acting], atol=1e-5)
    assert not kept[~acting].any() and np.abs(wanted).min() > 0


def test_a_plan_is_gone_on_with_and_cleared_where_a_recovery_begins(recover):
    obs = jnp.tile(jnp.array([[0.3, -0.2]]), (6, 1))
    old = jnp.tile(jnp.array([[0.9], [0.8], [-0.9]]), (6, 1, 1))
    nothing = start_plans(SMALL, 6, 1)
    begins, goes_on = jnp.ones(6, jnp.int32), jnp.full(6, 2)
    clean, cleared = recover(nothing, obs, begins), recover(old, obs, begins)
    np.testing.assert_array_equal(cleared[1], clean[1])
    following, action = recover(old, obs, goes_on)
    assert np.abs(action - clean[1]).min() > 1e-3  # the old plan did matter
    np.testing.assert_array_equal(following[:, -1], 0.0)  # one step on
