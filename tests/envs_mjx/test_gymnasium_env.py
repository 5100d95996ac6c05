"""The gymnasium bridges: gymnasium's own checker, and the same numbers as our own forms."""

import copy
import os
import pathlib
import pickle
import subprocess
import sys
import warnings

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from envs_mjx import BatchEnv, EnvError, make
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


def whole(observations, info):
    """All arrays that were handed out."""
    nested = [observations, *info.values()]
    nested += list(info.get("final_obs", ()))
    return [x for x in nested if isinstance(x, np.ndarray) and x.dtype != object]


def test_what_is_handed_out_belongs_to_whom_it_was_given(env, vector):
    """Written over, it changes neither the next step nor what was handed out before."""

    def roll(one, spoil):
        seen = []
        for step in range(-1, 8):
            action = actions(8)[step] if one is vector else actions(8)[step, 0]
            out = one.reset(seed=2) if step < 0 else one.step(action)
            arrays = [*whole(out[0], out[-1]), *(x for x in out[1:-1] if isinstance(x, np.ndarray))]
            seen += copy.deepcopy(arrays)
            for array in arrays if spoil else ():
                array[...] = 1
                action[...] = 0.0
            if one is not vector and step == 5:
                break
        return seen

    for one in (SingleEnv(env), vector):
        for clean, spoilt in zip(roll(one, False), roll(one, True), strict=True):
            np.testing.assert_array_equal(clean, spoilt)


def test_arrays_of_one_step_share_no_memory(vector):
    vector.reset(seed=0)
    for action in actions(6):
        observations, *rest, info = vector.step(action)
    arrays = [*whole(observations, info), *rest]
    assert len(arrays) == 1 + 5 + 1 + N + 3  # observations, info, its flags and last ones, the rest
    for i, one in enumerate(arrays):
        assert one.flags.writeable and one.flags.owndata
        assert not any(np.shares_memory(one, other) for other in arrays[i + 1 :])


@pytest.mark.parametrize("number", [0, -1, 2.5, True, None, "2", float("nan"), np.array([1, 2])])
def test_a_number_of_environments_that_is_none(env, number):
    for kind in (BatchEnv, VectorEnv):
        with pytest.raises(EnvError, match="num_envs must be an integer of at least 1; got"):
            kind(env, number)


def test_numpys_whole_numbers_are_numbers_of_environments(env):
    assert BatchEnv(env, np.int64(3)).num_envs == 3


@pytest.mark.parametrize(
    "action", [np.zeros(3), np.zeros((1, 4)), 0.0, [], None, "up", [1j, 0, 0, 0], [[0], [0, 1]], {}]
)
def test_an_action_that_is_none_is_one_line(env, vector, action):
    single = SingleEnv(env)
    single.reset(seed=0)
    vector.reset(seed=0)
    for one in (single, vector):
        with pytest.raises(EnvError, match="an action must") as caught:
            one.step(action)
        assert "\n" not in str(caught.value)


def test_numbers_of_any_kind_are_an_action(env):
    def after(action):
        single = SingleEnv(env)
        single.reset(seed=0)
        return single.step(action)[0]

    wanted = after(np.array([1, 0, -1, 0], np.float32))
    for action in ([1, 0, -1, 0], (1.0, 0.0, -1.0, 0.0), np.array([1, 0, -1, 0])):
        np.testing.assert_array_equal(after(action), wanted)
    np.testing.assert_array_equal(after(np.array([1, 0, -1, 0], np.float64)), wanted)


def test_an_action_that_is_not_finite_ends_the_episode_and_is_marked(env):
    single = SingleEnv(env)
    single.reset(seed=0)
    obs, _, terminated, truncated, info = single.step([np.nan, 0, 0, 0])
    assert np.isfinite(obs).all() and info["diverged"] and truncated and not terminated


@pytest.mark.parametrize("other", [None, "bounded_push", 3])
def test_only_environments_are_wrapped(other):
    with pytest.raises(EnvError, match="can be wrapped"):
        SingleEnv(other)
    with pytest.raises(EnvError, match="can be wrapped"):
        VectorEnv(other, 2)


@pytest.mark.parametrize(
    "overrides",
    [
        {"episode_limit": 0},
        {"episode_limit": 2.5},
        {"episode_limit": "x"},
        {"success_radius": None},
        {"bounds": 3},
        {"no_such": 1},
    ],
)
def test_settings_of_a_task_that_cannot_be_are_one_line(overrides):
    with pytest.raises(EnvError, match=next(iter(overrides))) as caught:
        make("bounded_push", "native", **overrides)
    assert "\n" not in str(caught.value)


def test_an_environment_is_built_anew_where_it_is_unpickled(env):
    again = pickle.loads(pickle.dumps(env))
    assert (again.name, again.backend, again.episode_limit) == (env.name, env.backend, 6)
    key = jax.random.key(0)
    np.testing.assert_array_equal(jax.jit(again.reset)(key).obs, jax.jit(env.reset)(key).obs)


PROCESSES = """
import sys
from gymnasium.vector import AsyncVectorEnv
from envs_mjx import EnvError, make
from envs_mjx.gymnasium_env import SingleEnv

if __name__ == "__main__":
    how, context = sys.argv[1:]
    env = make("bounded_push", "native")
    ready = SingleEnv(env)
    ready.reset()
    kinds = {
        "made there": lambda: SingleEnv(make("bounded_push", "native")),
        "made here": lambda: SingleEnv(env),
        "used here": lambda: ready,
    }
    try:
        several = AsyncVectorEnv([kinds[how]] * 2, context=None if context == "none" else context)
        print(several.reset(seed=0)[0].shape)
        print(len(several.step(several.action_space.sample())))
        several.close()
    except EnvError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("how", "context", "said"),
    [
        ("made there", "fork", 'context="spawn"'),
        ("made here", "fork", 'context="spawn"'),
        ("used here", "fork", 'context="spawn"'),
        ("made there", "spawn", "(2, 39)\n5"),
        ("made here", "spawn", "(2, 39)\n5"),
    ],
)
def test_processes_work_when_spawned_and_say_so_when_forked(tmp_path, how, context, said):
    """In a process of its own: what is wrong here would hang."""
    (tmp_path / "processes.py").write_text(PROCESSES)
    done = subprocess.run(
        [sys.executable, "processes.py", how, context],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said in done.stdout, done.stderr
