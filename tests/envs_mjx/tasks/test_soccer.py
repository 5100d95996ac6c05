"""Bounded Soccer's reward, margin, success, goal body, errors and controllers, on native."""

import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs_mjx import EnvError, Episode, Readings, RobotEnv, State, make
from envs_mjx.robots import sawyer_scene

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "data" / "soccer_golden.npz")
EPISODES = 64


@functools.cache
def soccer() -> RobotEnv:
    return make("bounded_soccer", "native")


@functools.cache
def reset_at_fn() -> "jax.stages.Wrapped":
    return jax.jit(jax.vmap(soccer().reset_at))


@functools.cache
def step_fn() -> "jax.stages.Wrapped":
    return jax.jit(jax.vmap(soccer().step))


def start(balls: list, goals: list) -> State:
    return reset_at_fn()(jnp.array(balls), jnp.array(goals))


def test_reward_matches_metaworld() -> None:
    def evaluate(row: jax.Array) -> jax.Array:
        nowhere, action = jnp.zeros(3), jnp.zeros(4).at[3].set(row[0])
        pads = jnp.zeros((2, 3)).at[::-1, 1].set(row[1:3])  # right, left
        readings = Readings(row[3:6], nowhere, jnp.zeros((2, 3)), pads, row[6:9], jnp.zeros(4), {})
        return soccer().task.reward(readings, action, Episode(row[9:12], row[12:15], row[15:18]))

    expected = GOLDEN["reward"]
    assert np.sum(expected == 10.0) >= 2 and np.sum(expected > 3.0) > 20
    got = jax.vmap(evaluate)(jnp.asarray(GOLDEN["reward_args"]))
    np.testing.assert_allclose(got, expected, atol=5e-5)


def test_reset_is_metaworlds_and_small() -> None:
    state = start([[0.05, 0.65]], [[-0.04, 0.88]])
    np.testing.assert_allclose(state.obs[0, 4:7], [0.05, 0.65, 0.03], atol=1e-6)
    np.testing.assert_allclose(state.obs[0, 36:39], [-0.04, 0.88, 0.0], atol=1e-6)
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(state)) < 2048


@pytest.mark.parametrize(
    ("ball", "margin"),
    [
        ((0.0, 0.7), 0.2),
        ((0.25, 0.7), 0.05),
        ((-0.31, 0.7), -0.01),
        ((0.0, 0.47), -0.03),
        ((0.0, 0.985), -0.02),
        ((0.33, 0.46), -0.05),
    ],
)
def test_margin_is_the_distance_to_the_nearest_edge(
    ball: tuple[float, float], margin: float
) -> None:
    state = start([ball], [(0.0, 0.85)])
    np.testing.assert_allclose(state.failure_margin[0], margin, atol=1e-6)
    assert bool(state.failure[0]) == (margin < 0.0)


def test_success_is_within_seven_centimetres() -> None:
    # 0.0636 m away in the plane and 0.026-0.03 m above the goal: 0.069 m and 0.0705 m in space.
    near, far = (0.0, 0.85 - 0.0632), (0.0, 0.85 - 0.0690)
    state = step_fn()(start([near, far], [(0.0, 0.85)] * 2), jnp.zeros((2, 4)))
    np.testing.assert_array_equal(state.success, [True, False])
    assert state.base_reward[0] == 10.0 and state.base_reward[1] < 10.0


def test_goal_body_stands_at_each_rows_own_goal() -> None:
    """A ball between the posts stays; one where a post is, of a goal elsewhere, is thrown out."""
    balls = [(0.0965, 0.80)] * 2
    state = start(balls, [(0.0, 0.80), (-0.1, 0.90)])
    np.testing.assert_allclose(state.physics.mocap_pos[:, 1], state.goal, atol=1e-6)
    for _ in range(10):
        state = step_fn()(state, jnp.zeros((2, 4)))
    moved = np.linalg.norm(state.obs[:, 4:6] - jnp.array(balls), axis=1)
    assert moved[0] > 0.02 and moved[1] < 1e-4
    np.testing.assert_allclose(state.physics.mocap_pos[:, 1], state.goal, atol=1e-6)


def test_drawn_scene_has_the_same_layout_and_goal_body() -> None:
    task, model = soccer().task, soccer().model
    drawn = sawyer_scene.build_visual_model(task.scene_file, task.edit_visuals, task.scene_parts)
    assert (drawn.nq, drawn.nmocap) == (model.nq, model.nmocap) == (16, 2)
    data = mujoco.MjData(drawn)
    data.qpos[:], data.mocap_pos[1] = model.qpos0, (0.07, 0.83, 0.0)
    mujoco.mj_kinematics(drawn, data)
    np.testing.assert_allclose(data.body("soccer_goal").xpos, [0.07, 0.83, 0.0], atol=1e-9)
    np.testing.assert_allclose(data.body("soccer_ball").xpos, model.qpos0[9:12], atol=1e-9)


def test_boxes_fit_the_goals_meshes() -> None:
    model = soccer().model
    np.testing.assert_allclose(
        model.geom("goal_col1_box").size, [0.0062, 0.0636, 0.0825], atol=2e-4
    )
    back = model.geom("goal_col2_box")  # 5 cm of lean over 16.5 cm of height
    assert 2 * np.arcsin(abs(back.quat[1])) == pytest.approx(np.arctan2(0.05, 0.165), abs=0.002)
    assert back.size[1] == pytest.approx(0.007, abs=2e-4)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"bounds": "wide"}, "unknown bounds 'wide'.*default"),
        ({"bounds": (0.0, 0.0, 0.0, 1.0)}, "enclose nothing"),
        ({"bounds": (0.0, 1.0, 0.0)}, "must be x_low, x_high, y_low, y_high"),
        ({"object_x": (0.1, -0.1)}, r"object_x is \(0.1, -0.1\): its first number"),
        ({"success_radius": 0.0}, "success_radius is 0.0: it must be above zero"),
        ({"episode_limit": 0}, "episode_limit is 0: it must be above zero"),
        ({"min_distance": 0.3}, "cannot always be met"),
    ],
)
def test_bad_settings_are_refused_in_one_line(override: dict, message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        make("bounded_soccer", "native", **override)
    assert "\n" not in str(caught.value)


class Careless(NamedTuple):
    """Careless episodes [EPISODES], and the first moment of danger in each."""

    failed: jax.Array  # bool
    endangered: jax.Array  # bool
    danger: State


def keep(mask: jax.Array, new: State, old: State) -> State:
    pick = lambda a, b: jnp.where(mask.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)
    return jax.tree.map(pick, new, old)


@functools.cache
def careless_episodes() -> Careless:
    env = soccer()
    key_reset, key_traits, key_noise = jax.random.split(jax.random.key(0), 3)
    traits = jax.jit(jax.vmap(env.careless_traits))(jax.random.split(key_traits, EPISODES))

    def act(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        state, ended, failed, endangered, danger = carry
        action = jnp.clip(jax.vmap(env.careless)(state.obs, traits), -1.0, 1.0)
        noise = 0.15 * jax.random.normal(key, (EPISODES, 4))
        moved = jax.vmap(env.step)(state, action + noise)
        ended |= moved.done
        rolling = jnp.linalg.norm(moved.obs[:, 4:6] - moved.obs[:, 22:24], axis=1) > 5e-4
        now = (moved.failure_margin < env.task.danger_margin) & rolling & ~moved.failure
        now &= ~endangered & ~ended
        failed |= moved.failure & ~ended
        return (moved, ended, failed, endangered | now, keep(now, moved, danger)), None

    state = jax.jit(jax.vmap(env.reset))(jax.random.split(key_reset, EPISODES))
    no = jnp.zeros(EPISODES, bool)
    run = jax.jit(lambda carry, keys: jax.lax.scan(act, carry, keys)[0])
    out = run((state, no, no, no, state), jax.random.split(key_noise, env.episode_limit))
    return Careless(*out[2:])


def test_expert_scores_without_failing() -> None:
    env = soccer()

    def act(carry: tuple, _: None) -> tuple[tuple, None]:
        state, ended = carry
        moved = jax.vmap(env.step)(state, jax.vmap(env.expert)(state.obs))
        state = keep(ended, state, moved)
        return (state, ended | state.done), None

    state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), EPISODES))
    run = jax.jit(lambda s: jax.lax.scan(act, (s, s.done), None, length=150)[0][0])
    end = run(state)
    assert np.mean(end.success) >= 0.9
    assert np.mean(end.failing_steps > 0) <= 0.02


def test_careless_operator_fails_often() -> None:
    assert 0.28 <= np.mean(careless_episodes().failed) <= 0.7


def test_recovery_prevents_most_failures() -> None:
    env, episodes = soccer(), careless_episodes()

    def act(carry: tuple, _: None) -> tuple[tuple, None]:
        state, failed, safe = carry
        state = jax.vmap(env.step)(state, jax.vmap(env.recovery)(state.obs))
        safe |= state.failure_margin >= env.task.safe_margin
        return (state, failed | (state.failure & ~safe), safe), None

    no = jnp.zeros(EPISODES, bool)
    run = jax.jit(lambda carry: jax.lax.scan(act, carry, None, length=100)[0])
    _, failed, _ = run((episodes.danger, no, no))
    endangered = np.asarray(episodes.endangered)
    assert endangered.sum() > 20
    assert np.mean(np.asarray(episodes.failed)[endangered]) > 0.5  # what carelessness leads to
    assert np.mean(np.asarray(failed)[endangered]) < 0.25


@pytest.mark.parametrize(
    ("aside", "ahead", "height", "out"),
    [
        (0.0, 0.1, 0.06, True),
        (0.2, 0.1, 0.06, False),
        (0.0, 0.2, 0.06, False),
        (0.0, 0.1, 0.13, False),
    ],
)
def test_recovery_comes_out_from_under_the_bar_before_it_rises(aside, ahead, height, out) -> None:
    goal = jnp.array([0.0, 0.85, 0.0])
    hand = jnp.array([goal[0] + aside, goal[1] - ahead, height, 1.0])
    ball = jnp.array([0.0, 0.65, 0.026])  # at rest, well inside
    frame = jnp.concatenate([hand, ball, jnp.zeros(11)])
    action = make("bounded_soccer").recovery(jnp.concatenate([frame, frame, goal]))
    assert (float(action[1]) == -1.0 and float(action[2]) == 0.0) == out
    assert (float(action[2]) == 1.0) == (not out)
