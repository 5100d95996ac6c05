"""Resets, steps, rewards, flags and errors of one environment, on the native backend."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs_mjx import EnvError, RobotEnv, State, make
from envs_mjx.physics.backends import make_physics
from envs_mjx.tasks.bounded_push import BoundedPush

SUCCESS_START = ((0.0, 0.7), (0.0, 0.85))


@functools.cache
def push() -> RobotEnv:
    return make("bounded_push", "native")


@functools.cache
def step_fn() -> "jax.stages.Wrapped":
    return jax.jit(push().step)


@functools.cache
def reset_fn() -> "jax.stages.Wrapped":
    return jax.jit(push().reset)


@functools.cache
def reset_at_fn() -> "jax.stages.Wrapped":
    return jax.jit(push().reset_at)


def reset(seed: int) -> State:
    return reset_fn()(jax.random.key(seed))


@functools.cache
def batch_step_fn() -> "jax.stages.Wrapped":
    return jax.jit(jax.vmap(push().step))


def roll(state: State, steps: int, action: jax.Array | None = None) -> list[State]:
    """Apply `action`, or the expert's, and return every state, the first included."""
    states = [state]
    for _ in range(steps):
        chosen = push().expert(states[-1].obs) if action is None else action
        states.append(step_fn()(states[-1], chosen))
    return states


def test_reset_shapes_and_flags() -> None:
    env = push()
    state = reset(0)
    assert state.obs.shape == (env.observation_size,) == (39,)
    np.testing.assert_array_equal(state.obs[18:36], state.obs[:18])
    np.testing.assert_array_equal(state.obs[4:7], state.object_start)
    np.testing.assert_array_equal(state.obs[36:39], state.goal)
    assert not (state.done or state.success or state.failure or state.diverged)
    assert state.reward == state.step_count == state.failing_steps == state.episode_return == 0


def test_state_is_small() -> None:
    leaves = jax.tree.leaves(reset(0))
    assert sum(leaf.nbytes for leaf in leaves) < 2048


def test_reset_placement_covers_metaworlds_ranges() -> None:
    start, goal = jax.jit(jax.vmap(push().task.place))(jax.random.split(jax.random.key(1), 4000))
    for values, low, high in (
        (start[:, 0], -0.1, 0.1),
        (start[:, 1], 0.6, 0.7),
        (goal[:, 0], -0.1, 0.1),
        (goal[:, 1], 0.8, 0.9),
    ):
        assert low <= values.min() < low + 0.01
        assert high - 0.01 < values.max() <= high
    assert jnp.linalg.norm(start - goal, axis=1).min() >= 0.15 - 1e-6


def test_reset_observation_is_that_of_a_true_forward_pass() -> None:
    env = push()
    state = reset(2)
    data = mujoco.MjData(env.model)
    data.qpos[:] = state.physics.qpos
    mujoco.mj_forward(env.model, data)
    readings = env._read(jnp.asarray(data.sensordata, jnp.float32))
    np.testing.assert_allclose(env.robot.frame(readings), state.obs[:18], atol=1e-6)


def test_hand_is_settled_at_reset() -> None:
    before, after = roll(reset(3), 1, jnp.array([0.0, 0.0, 0.0, -1.0]))
    np.testing.assert_allclose(after.obs[:7], before.obs[:7], atol=1e-3)  # m; at rest but for creep


def test_same_key_same_episode_bit_for_bit() -> None:
    first, second = (roll(reset(4), 50)[-1] for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_thread_count_changes_nothing() -> None:
    env = push()
    states = jax.vmap(reset_fn())(jax.random.split(jax.random.key(5), 8))
    control = jax.jit(jax.vmap(env._control))(states, jnp.full((8, 4), 0.5))
    one, many = (
        jax.jit(jax.vmap(make_physics(env.model, "native", threads).step))(states.physics, control)
        for threads in (1, 4)
    )
    jax.tree.map(np.testing.assert_array_equal, one, many)


def test_success_is_absorbing_and_pays_the_remaining_steps() -> None:
    states = roll(reset_at_fn()(*map(jnp.array, SUCCESS_START)), 90)
    first = next(index for index, state in enumerate(states) if state.success)
    end = states[first]
    assert end.terminated and end.done and not end.truncated
    assert end.step_count == first
    np.testing.assert_allclose(end.reward, end.base_reward + 10.0 * (250 - first), rtol=1e-6)
    total = sum(float(state.reward) for state in states[: first + 1])
    np.testing.assert_allclose(end.episode_return, total, rtol=1e-5)
    assert all(not state.done and state.reward == state.base_reward for state in states[:first])


def test_time_limit_truncates() -> None:
    late = reset(6).replace(step_count=jnp.int32(248))
    states = roll(late, 2, jnp.zeros(4))
    assert [bool(state.truncated) for state in states] == [False, False, True]
    assert not states[-1].terminated and not states[-1].diverged


def test_success_on_the_last_step_terminates_without_bonus() -> None:
    near = reset_at_fn()(jnp.array([0.0, 0.7]), jnp.array([0.0, 0.74]))
    end = step_fn()(near.replace(step_count=jnp.int32(249)), jnp.zeros(4))
    assert end.terminated and not end.truncated
    np.testing.assert_allclose(end.reward, 10.0)


def test_failure_counts_and_does_not_end_the_episode() -> None:
    outside = reset_at_fn()(jnp.array([0.17, 0.65]), jnp.array([0.0, 0.85]))
    assert outside.failure and outside.failing_steps == 0
    np.testing.assert_allclose(outside.failure_margin, -0.02, atol=1e-6)
    last = roll(outside, 3, jnp.zeros(4))[-1]
    assert last.failure and last.failing_steps == 3 and not last.done
    videos = make("bounded_push", "native", bounds="videos")
    inside = videos.reset_at(jnp.array([0.17, 0.65]), jnp.array([0.0, 0.85]))
    assert not inside.failure
    np.testing.assert_allclose(inside.failure_margin, 0.05, atol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_bad_action_is_contained(bad: float) -> None:
    before = roll(reset(7), 3)[-1]
    after = step_fn()(before, jnp.array([0.0, bad, 0.0, 0.0]))
    check_contained(before, after)


@pytest.mark.parametrize("speed", [np.nan, 1e12, 1e8])  # 1e8 breaks down within the step
def test_bad_physics_is_contained_to_its_row(
    speed: float, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo logs a breakdown to a file where it runs
    states = jax.vmap(reset_fn())(jax.random.split(jax.random.key(8), 3))
    broken = states.replace(
        physics=states.physics.replace(qvel=states.physics.qvel.at[1].set(speed))
    )
    step = batch_step_fn()
    after, expected = step(broken, jnp.zeros((3, 4))), step(states, jnp.zeros((3, 4)))
    np.testing.assert_array_equal(after.diverged, [False, True, False])
    take = lambda tree, index: jax.tree.map(lambda leaf: leaf[index], tree)
    check_contained(take(broken, 1), take(after, 1))
    for row in (0, 2):
        jax.tree.map(np.testing.assert_array_equal, take(after, row), take(expected, row))


def check_contained(before: State, after: State) -> None:
    assert after.diverged and after.truncated and not after.terminated and not after.success
    assert after.reward == 0.0 and after.step_count == before.step_count + 1
    jax.tree.map(np.testing.assert_array_equal, after.physics, before.physics)
    np.testing.assert_array_equal(after.obs, before.obs)
    assert after.failure_margin == before.failure_margin
    outside = after.replace(physics=None)  # what was put into the physics stays there
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(outside))


def test_hand_moves_a_centimetre_per_unit_within_its_limits() -> None:
    states = roll(reset(9), 80, jnp.array([1.0, -9.0, 0.0, 0.0]))
    mocap = np.stack([state.physics.mocap_pos[0] for state in states])
    np.testing.assert_allclose(mocap[1] - mocap[0], [0.01, -0.01, 0.0], atol=1e-6)
    np.testing.assert_allclose(mocap[-1], [0.5, 0.4, 0.2], atol=1e-6)


def test_wrong_action_shape_is_refused() -> None:
    with pytest.raises(EnvError, match=r"shape \(4,\), got \(64, 4\); .*BatchEnv"):
        push().step(reset(0), jnp.zeros((64, 4)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "bounded_pus"}, "unknown task.*did you mean 'bounded_push'"),
        ({"task": "bounded_push", "backend": "mjc"}, "unknown physics backend 'mjc'.*native"),
        ({"task": "bounded_push", "bound": "videos"}, "no setting 'bound'.*did you mean 'bounds'"),
        ({"task": "bounded_push", "bounds": "video"}, "unknown bounds.*did you mean 'videos'"),
        ({"task": "bounded_push", "bounds": (1.0, -1.0, 0.0, 1.0)}, "enclose nothing"),
        ({"task": "bounded_push", "min_distance": 0.3}, "cannot always be met"),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_valid(arguments: dict, message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        make(**arguments)
    assert "\n" not in str(caught.value)


def test_expert_succeeds_without_failing() -> None:
    env = push()
    step = jax.vmap(env.step)

    def act(carry: tuple, _: None) -> tuple[tuple, None]:
        state, ended = carry
        moved = step(state, jax.vmap(env.expert)(state.obs))
        keep = lambda old, new: jnp.where(ended.reshape((-1,) + (1,) * (new.ndim - 1)), old, new)
        state = jax.tree.map(keep, state, moved)
        return (state, ended | state.done), None

    start = jax.vmap(reset_fn())(jax.random.split(jax.random.key(10), 100))
    run = jax.jit(lambda s: jax.lax.scan(act, (s, s.done), None, length=110)[0][0])
    end = run(start)
    assert np.mean(end.success) >= 0.95
    assert np.mean(end.failing_steps > 0) <= 0.02
    np.testing.assert_allclose(np.mean(end.episode_return), env.expert_return, rtol=0.02)


@pytest.mark.skipif(importlib.util.find_spec("warp") is not None, reason="warp-lang is installed")
def test_missing_warp_is_an_error_that_says_how_out() -> None:
    with pytest.raises(EnvError, match=r"needs warp-lang.*pip install 'farl-jax\[warp\]'"):
        make("bounded_push", "warp")


def test_make_takes_a_task_object() -> None:
    env = make(BoundedPush(bounds="videos"), "native", episode_limit=7)
    assert (env.task.bounds, env.episode_limit) == ("videos", 7)
