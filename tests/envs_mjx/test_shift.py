"""Shifted dynamics: what is drawn, that it acts, and that the nominal task does not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import TASKS, EnvError, RobotEnv, State, make
from envs_mjx.shift import Shift, draw_shift, shift_model

TASK = "bounded_push"


@functools.cache
def nominal() -> RobotEnv:
    return make(TASK, "native")


def run(env: RobotEnv, actions: jax.Array, rows: int = 1) -> State:
    """States [T, rows] after each of `actions` [T, 4]."""

    def step(state: State, action: jax.Array) -> tuple[State, State]:
        state = jax.vmap(env.step)(state, jnp.broadcast_to(action, (rows, 4)))
        return state, state

    start = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), rows))
    return jax.jit(lambda s, a: jax.lax.scan(step, s, a)[1])(start, actions)


def shifted(**changes: float) -> RobotEnv:
    """An environment in which nothing is shifted but `changes`."""
    none = Shift(mass=1.0, friction=1.0, gain=1.0, noise=0.0, latency=0)
    return RobotEnv(nominal().task, "native", shift=none._replace(**changes))


def test_a_seed_draws_factors_within_a_fifth() -> None:
    drawn = [draw_shift(seed) for seed in range(200)]
    factors = np.array([shift[:3] for shift in drawn])
    assert factors.min() >= 0.8 and factors.max() <= 1.2
    assert factors.min() < 0.81 and factors.max() > 1.19
    assert abs(np.corrcoef(factors.T) - np.eye(3)).max() < 0.25
    assert {shift[3:] for shift in drawn} == {(0.002, 1)}
    assert draw_shift(3) == draw_shift(3) != draw_shift(4)


@pytest.mark.parametrize("bad", [-1, 0.5, True, "1"])
def test_what_is_no_seed_is_refused(bad: object) -> None:
    with pytest.raises(EnvError, match="shift must be a seed, a whole number of at least 0; got"):
        make(TASK, "native", shift=bad)


@pytest.mark.parametrize("task", ["fragile_push_wall", "franka_bounded_soccer"])
def test_the_models_mass_friction_and_force_follow_their_factors(task: str) -> None:
    robot, kind = TASKS[task].robot, TASKS[task]()
    build = lambda: robot.physics_model(kind.scene_file, kind.edit_physics, kind.scene_parts)
    before, after = build(), build()
    shift_model(after, Shift(0.8, 1.2, 0.9), robot.object_qpos)
    body = int(before.jnt_bodyid[np.flatnonzero(before.jnt_qposadr == robot.object_qpos)[0]])
    ratio = after.body_mass[1:] / before.body_mass[1:]
    np.testing.assert_allclose(ratio[body - 1], 0.8)
    assert np.sum(ratio[before.body_mass[1:] > 0] != 1.0) == 1  # nothing else
    np.testing.assert_allclose(after.geom_friction, 1.2 * before.geom_friction)
    np.testing.assert_allclose(after.actuator_gainprm, 0.9 * before.actuator_gainprm)
    np.testing.assert_array_equal(after.eq_data, before.eq_data)


def test_a_shift_by_nothing_is_the_nominal_task() -> None:
    actions = jax.random.uniform(jax.random.key(1), (30, 4), minval=-1.0, maxval=1.0)
    expected, same = run(nominal(), actions), run(shifted(), actions)
    assert expected.queued is None and expected.noise is None
    np.testing.assert_allclose(same.obs, expected.obs, atol=1e-4)
    np.testing.assert_allclose(same.reward, expected.reward, atol=1e-3)


def test_latency_carries_out_what_was_asked_a_step_before() -> None:
    actions = jax.random.uniform(jax.random.key(1), (20, 4), minval=-1.0, maxval=1.0)
    late = run(shifted(latency=1), actions)
    delayed = run(nominal(), jnp.concatenate([jnp.zeros((1, 4)), actions[:-1]]))
    np.testing.assert_allclose(late.obs, delayed.obs, atol=1e-4)
    np.testing.assert_allclose(late.reward, delayed.reward, atol=1e-3)
    np.testing.assert_array_equal(late.queued[:, 0], actions)


def test_gain_scales_the_hands_motion_within_its_limits() -> None:
    up = jnp.tile(jnp.array([0.0, 0.0, 0.5, 0.0]), (60, 1))
    height = run(shifted(gain=1.2), up).physics.mocap_pos[:, 0, 0, 2]
    np.testing.assert_allclose(height[1] - height[0], 1.2 * 0.005, rtol=1e-4)
    np.testing.assert_allclose(height[-1], nominal().task.hand_high[2])


def test_noise_blurs_positions_alone_by_2_mm() -> None:
    still = jnp.zeros((40, 4))
    noisy, clean = run(shifted(noise=0.002), still, 64), run(nominal(), still, 64)
    error = np.asarray(noisy.obs - clean.obs)
    where = np.array(nominal().robot.frame_positions)
    np.testing.assert_allclose(np.std(error[..., :18][..., where], axis=(0, 1)), 0.002, rtol=0.06)
    assert not error[..., :18][..., ~where].any() and not error[..., 36:].any()
    np.testing.assert_array_equal(noisy.obs[1:, :, 18:36], noisy.obs[:-1, :, :18])
    np.testing.assert_array_equal(noisy.failure_margin, clean.failure_margin)  # the truth
    flat = error[..., :18][..., where].reshape(-1, 64 * 6)
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.2  # each step draws anew


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_shifted_on_mjx_too(task: str) -> None:
    native, other = (make(task, backend, shift=2) for backend in ("native", "mjx"))
    options = {**other.compiler_options, "xla_backend_optimization_level": 0}
    start = jax.jit(jax.vmap(native.reset))(jax.random.split(jax.random.key(0), 2))
    action = jnp.tile(jnp.array([0.4, 0.3, -0.5, 0.2]), (2, 1))

    def ahead(env: RobotEnv) -> State:
        step = lambda s, _: (jax.vmap(env.step)(s, action), None)
        roll = lambda s: jax.lax.scan(step, s, None, length=5)[0]
        return jax.jit(roll, compiler_options=options if env is other else {})(start)

    expected, actual = ahead(native), ahead(other)
    np.testing.assert_allclose(actual.obs, expected.obs, atol=2e-3)
    np.testing.assert_array_equal(actual.queued, action)
