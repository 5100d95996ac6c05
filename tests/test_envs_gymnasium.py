"""The gymnasium bridges: gymnasium's own checker, and the same numbers as our own forms."""

import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from envs_mjx import BatchEnv, make
from envs_mjx.gymnasium_env import SingleEnv, VectorEnv

N = 4


@pytest.fixture(scope="module")
def env():
    return make("bounded_push", "native", episode_limit=6)


@pytest.fixture(scope="module")
def vector(env):
    return VectorEnv(env, N)


def actions(steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1.0, 1.0, (steps, N, 4)).astype(np.float32)


def test_one_environment_passes_gymnasiums_checker(env):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|render|spec).*")
        check_env(SingleEnv(env), skip_render_check=True)


def test_step_before_reset_is_refused(env):
    with pytest.raises(gymnasium.error.ResetNeeded):
        SingleEnv(env).step(np.zeros(4, np.float32))
    with pytest.raises(gymnasium.error.ResetNeeded):
        VectorEnv(env, N).step(np.zeros((N, 4), np.float32))


def test_one_environment_is_ours(env):
    single = SingleEnv(env)
    obs, _ = single.reset(seed=3)
    key = jax.random.key(int(np.random.Generator(np.random.PCG64(3)).integers(2**31)))
    state = jax.jit(env.reset)(key)
    np.testing.assert_array_equal(obs, state.obs)
    for action in actions(6)[:, 0]:
        state = jax.jit(env.step)(state, action)
        obs, reward, terminated, truncated, info = single.step(action)
        np.testing.assert_array_equal(obs, state.obs)
        assert reward == float(state.reward) and isinstance(reward, float)
        assert (terminated, truncated) == (bool(state.terminated), bool(state.truncated))
        assert info["failure_margin"] == state.failure_margin
    assert truncated


def test_same_seed_same_episodes_and_another_seed_others(vector):
    def roll(seed):
        seen = [vector.reset(seed=seed)[0]]
        return np.stack(seen + [vector.step(action)[0] for action in actions(8)])

    np.testing.assert_array_equal(roll(1), roll(1))
    assert not np.array_equal(roll(1), roll(2))


def test_spaces_and_dtypes_hold(vector):
    obs, _ = vector.reset(seed=0)
    assert vector.observation_space.contains(obs)
    assert vector.action_space.contains(vector.action_space.sample())
    obs, reward, terminated, truncated, _ = vector.step(vector.action_space.sample())
    assert vector.observation_space.contains(obs)
    assert reward.shape == (N,) and terminated.dtype == truncated.dtype == np.bool_


def test_restarts_within_the_step_and_keeps_the_true_last_observation(env, vector):
    first, _ = vector.reset(seed=5)
    rows = [vector.step(action) for action in actions(6)]
    obs, _, _, truncated, info = rows[-1]
    assert truncated.all() and info["_final_obs"].all()
    assert all("final_obs" not in row[4] for row in rows[:-1])
    last = np.stack(list(info["final_obs"]))
    key = jax.random.key(int(np.random.Generator(np.random.PCG64(5)).integers(2**31)))
    state = jax.jit(BatchEnv(env, N).reset)(key)
    for action in actions(6):
        state = jax.jit(jax.vmap(env.step))(state, action)
    np.testing.assert_allclose(last, state.obs, atol=1e-6)
    np.testing.assert_array_equal(obs[:, :3], first[:, :3])  # the hand is back at its start
    assert not np.allclose(obs, last)


def test_gymnasiums_statistics_agree_with_ours(vector):
    recorded = RecordEpisodeStatistics(vector)
    recorded.reset(seed=7)
    total = np.zeros(N)
    for action in actions(6):
        _, reward, _, _, info = recorded.step(action)
        total += reward
    np.testing.assert_allclose(info["episode"]["r"], total, rtol=1e-6)
    assert (info["episode"]["l"] == 6).all()
