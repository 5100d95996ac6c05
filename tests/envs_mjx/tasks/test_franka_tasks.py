"""The Franka's three tasks: margins in metres, what moves by itself, and what scripts achieve."""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs_mjx import SUITES, EnvError, RobotEnv, State, make
from envs_mjx.geometry import box_distance, turned_half
from experiments.bench.tasks import measure

TASKS = SUITES["franka"]


@functools.cache
def env_of(task: str) -> RobotEnv:
    return make(task, "native")


def at(task: str, x: float, y: float) -> State:
    return env_of(task).reset_at(jnp.array([x, y]), jnp.array([0.63, 0.0]))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((3.0, 0.0, 0.0), 1.5),  # face to face
        ((4.0, 4.5, 0.0), np.hypot(2.5, 3.0)),  # edge to edge: 4 - 1.5 and 4.5 - 1.5
        ((1.2, 0.0, 0.0), -0.3),
    ],
)
def test_distances_of_boxes(other: tuple, expected: float) -> None:
    found = box_distance(jnp.zeros(3), jnp.ones(3), jnp.array(other), jnp.full(3, 0.5))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_cube_turned_by_45_degrees_is_as_wide_as_its_diagonal() -> None:
    quat = jnp.array([0.0, 0.0, np.sin(np.pi / 8), np.cos(np.pi / 8)])
    np.testing.assert_allclose(
        turned_half(quat, jnp.full(3, 0.025)), [0.025 * 2**0.5, 0.025 * 2**0.5, 0.025], atol=1e-6
    )


def test_the_margin_of_the_wall_is_the_nearest_parts() -> None:
    # The cube's face at x + 0.025, the wall's at 0.46; the hand, 0.0316 deep, is at x = 0.36.
    cube = float(at("franka_fragile_push_wall", 0.41, 0.05).failure_margin)
    np.testing.assert_allclose(cube, 0.46 - 0.435 - 0.001, atol=1e-4)
    # The hand starts above the wall: its underside is 0.0374 m above the finger tips, at 0.12 m.
    hand = float(at("franka_fragile_push_wall", 0.33, 0.05).failure_margin)
    away, above = 0.46 - 0.36 - 0.0316, 0.12 + 0.0374 - 0.12
    np.testing.assert_allclose(hand, np.hypot(away, above) - 0.001, atol=1e-3)
    assert at("franka_fragile_push_wall", 0.44, 0.05).failure


def test_the_margin_of_the_lane_is_the_balls() -> None:
    for y, expected in ((0.0, 0.04), (0.03, 0.01), (-0.05, -0.01)):
        state = at("franka_bounded_soccer", 0.43, y)
        np.testing.assert_allclose(state.failure_margin, expected, atol=1e-6)
        assert bool(state.failure) == (expected < 0.0)


def test_turf_stops_a_ball_within_half_a_metre() -> None:
    env = env_of("franka_bounded_soccer")
    data = mujoco.MjData(env.model)
    data.qpos[:], data.mocap_pos[:] = env._settled.qpos, env._settled.mocap_pos
    data.qpos[9:12], data.ctrl[:] = (0.0, 0.3, 0.02), 255.0
    data.qvel[9], data.qvel[13] = 0.3, 0.3 / 0.02
    mujoco.mj_step(env.model, data, 2000)
    assert 0.35 < data.qpos[9] < 0.5 and abs(data.qvel[9]) < 0.01


def test_the_flower_swings_as_fast_as_it_says_and_stays_in_its_area() -> None:
    env = make("franka_disturbed_push", "native", flower_low=(-9.0, -9.0), flower_high=(9.0, 9.0))

    def swing(state: tuple, key: jax.Array) -> tuple:
        physics = env.task.disturb(state, key)
        moved = physics.qpos[16:18] + 0.02 * physics.qvel[15:17]
        return physics.replace(qpos=physics.qpos.at[16:18].set(moved)), physics.qvel[15:17]

    start = env._settled.replace(qpos=env._settled.qpos.at[16:18].set(0.0))
    keys = jax.random.split(jax.random.key(0), 20_000)
    _, speeds = jax.jit(lambda s, k: jax.lax.scan(swing, s, k))(start, keys)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(speeds[500:]))), 0.10, rtol=0.15)
    env = env_of("franka_disturbed_push")
    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 8))

    def step(state: State, _: None) -> tuple[State, jax.Array]:
        state = jax.vmap(env.step)(state, jnp.zeros((8, 4)).at[:, 2].set(1.0))
        return state, state.obs[:, 11:13]

    _, seen = jax.jit(lambda s: jax.lax.scan(step, s, None, length=150))(states)
    low, high = np.array(env.task.flower_low), np.array(env.task.flower_high)
    assert (seen >= low - 1e-4).all() and (seen <= high + 1e-4).all()
    assert np.std(seen[..., 1]) > 0.02 and np.std(seen[-1, :, 1]) > 0.01  # each its own way


def test_the_margin_of_the_flower_is_to_its_bloom() -> None:
    state = at("franka_disturbed_push", 0.36, 0.0)
    bloom = np.asarray(state.physics.qpos[16:18])
    beside = state.physics.qpos[16:18]
    near = env_of("franka_disturbed_push").reset_at(beside - jnp.array([0.045, 0.0]), beside)
    np.testing.assert_allclose(near.physics.qpos[16:18], bloom)  # the same key
    np.testing.assert_allclose(near.failure_margin, 0.045 - 0.025 - 0.015, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "setting", "message"),
    [
        ("franka_fragile_push_wall", {"object_x": (0.4, 0.44)}, "can touch the wall"),
        ("franka_disturbed_push", {"flower_low": (0.6, 0.0)}, "must not be larger"),
        ("franka_bounded_soccer", {"lane_x": (0.5, 0.7)}, "must hold object_x"),
        ("franka_bounded_soccer", {"goal_x": (0.44, 0.45)}, "further than success_radius"),
    ],
)
def test_settings_that_no_episode_could_meet(task: str, setting: dict, message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        make(task, "native", **setting)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", TASKS)
def test_scripts_meet_the_floors(task: str) -> None:
    row = measure(env_of(task).task, 300, seed=5)
    assert row["expert_success"]["rate"] >= 0.95 and row["expert_failure"]["rate"] <= 0.02
    assert row["recovery"]["rate"] >= 0.9 and row["recovery"]["count"] > 50
    assert row["careless_failure"]["rate"] > 0.2 and row["diverged"] == 0
    assert row["random_return"]["mean"] == pytest.approx(env_of(task).random_return, rel=0.15)
    assert row["expert_return"]["mean"] == pytest.approx(env_of(task).expert_return, rel=0.02)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", TASKS)
def test_mjx_agrees_with_native(task: str) -> None:
    """From where the fingers have the object, the expert's actions for 25 steps."""
    native, other = env_of(task), make(task, "mjx")

    def expert(state: State, _: None) -> tuple[State, jax.Array]:
        action = jnp.clip(jax.vmap(native.expert)(state.obs), -1.0, 1.0)
        return jax.vmap(native.step)(state, action), action

    run = jax.jit(lambda s, n: jax.lax.scan(expert, s, None, length=n), static_argnums=1)
    start, _ = run(jax.vmap(native.reset)(jax.random.split(jax.random.key(5), 4)), 16)
    expected, actions = run(start, 25)
    options = {**other.compiler_options, "xla_backend_optimization_level": 0}

    @functools.partial(jax.jit, compiler_options=options)
    def replay(state: State, actions: jax.Array) -> State:
        return jax.lax.scan(lambda s, a: (jax.vmap(other.step)(s, a), None), state, actions)[0]

    actual = replay(start, actions)
    assert not np.any(actual.diverged)
    moved = np.linalg.norm(expected.obs[:, 4:6] - start.obs[:, 4:6], axis=1)
    assert np.median(moved) > 0.02
    np.testing.assert_allclose(actual.obs[:, :3], expected.obs[:, :3], atol=0.002)
    np.testing.assert_allclose(actual.obs[:, 4:7], expected.obs[:, 4:7], atol=0.004)
    np.testing.assert_allclose(actual.failure_margin, expected.failure_margin, atol=0.004)
    assert np.median(np.abs(actual.base_reward - expected.base_reward)) < 0.05
