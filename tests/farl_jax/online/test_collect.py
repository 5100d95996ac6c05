"""Shares of a rollout's environments give the numbers of the whole, and errors come through."""

import jax
import numpy as np
import pytest

from envs_mjx import BatchEnv
from envs_mjx.robot_env import RobotEnv
from envs_mjx.tasks.bounded_push import BoundedPush
from farl_jax.nn.distributions import draw_rows
from farl_jax.online.side_by_side import SideBySide


@pytest.fixture(scope="module")
def env():
    return BatchEnv(RobotEnv(BoundedPush(), "native", threads=2), 128)


def test_shares_are_of_64_rows_and_no_more_than_threads(env):
    assert env.shares == 2
    assert BatchEnv(env.env, 96).shares == BatchEnv(env.env.with_threads(1), 512).shares == 1
    assert BatchEnv(env.env.with_threads(8), 512).shares == 8
    part = env.share(2)
    assert (part.num_envs, part.env.host_threads) == (64, 1)


def test_a_shares_episodes_and_noise_are_those_of_its_rows(env):
    key = jax.random.key(0)
    whole = jax.jit(env.reset)(key)
    part = jax.jit(lambda first: env.share(2).at_row(first).reset(key))(64)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[64:], b), whole, part)
    noise = draw_rows(128, 64 * jax.numpy.ones((), int))(key, (64, 4))
    np.testing.assert_array_equal(noise, jax.random.normal(key, (128, 4))[64:])


def test_results_come_in_order_and_an_error_is_raised():
    threads = SideBySide(2)
    for _ in range(2):  # in turn, then at once
        assert threads.run([lambda i=i: i for i in range(3)]) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        threads.run([lambda: 1 // 0, lambda: 1])


@pytest.mark.slow
def test_two_shares_give_the_numbers_of_one_program(monkeypatch):
    from experiments.bench.train import Setup
    from farl_jax.methods import METHODS
    from farl_jax.online.loop import make_online

    setup, states, steps = Setup("bounded_push", "native", 128), [], []
    for shares in (1, 2):
        monkeypatch.setattr(BatchEnv, "shares", shares)
        phase = make_online(setup.env, setup.nets, setup.config, METHODS["farl"])
        state = phase.init(setup.frozen, jax.random.key(0))
        state, seen = phase.collect(state, setup.frozen, setup.gate)
        states.append(state.env_state.obs)
        steps.append(seen)
    np.testing.assert_allclose(*states, atol=1e-5)
    np.testing.assert_array_equal(*[s.decision.intervened for s in steps])
    np.testing.assert_allclose(*[s.obs for s in steps], atol=1e-5)
