"""Shifted dynamics: what is drawn, that it acts, and that the nominal task does not change."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import TASKS, EnvError, RobotEnv, State, make
from envs_mjx.shift import Shift, draw_shift, shift_model

TASK = "bounded_push"
ROWS, STEPS = 16, 40


@functools.cache
def nominal() -> RobotEnv:
    return make(TASK, "native")


def run(env: RobotEnv, actions: jax.Array) -> State:
    """States [T, ROWS] after each of `actions` [T, 4]."""

    def step(state: State, action: jax.Array) -> tuple[State, State]:
        state = jax.vmap(env.step)(state, jnp.broadcast_to(action, (ROWS, 4)))
        return state, state

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def rollout(actions: jax.Array) -> State:
        start = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), ROWS))
        return jax.lax.scan(step, start, actions)[1]

    return rollout(actions)


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
    with pytest.raises(EnvError, match="shift must be a seed, an integer of at least 0; got"):
        make(TASK, "native", shift=bad)


@pytest.mark.parametrize("task", ["fragile_push_wall", "franka_bounded_soccer"])
def test_the_models_mass_friction_and_force_follow_their_factors(task: str) -> None:
    robot, kind = TASKS[task].robot, TASKS[task]()
    build = lambda: robot.physics_model(kind.scene_file, kind.edit_physics, kind.scene_parts)
    before, after = build(), build()
    shift_model(after, Shift(0.8, 1.2, 0.9), robot.object_qpos)
    body = int(before.jnt_bodyid[np.flatnonzero(before.jnt_qposadr == robot.object_qpos)[0]])
    np.testing.assert_allclose(after.body_mass[body], 0.8 * before.body_mass[body])
    assert np.sum(after.body_mass != before.body_mass) == 1  # nothing else
    np.testing.assert_allclose(after.geom_friction, 1.2 * before.geom_friction)
    np.testing.assert_allclose(after.actuator_gainprm, 0.9 * before.actuator_gainprm)
    np.testing.assert_array_equal(after.eq_data, before.eq_data)


def test_a_late_and_blurred_robot_is_the_nominal_one_a_step_late_but_for_what_it_sees() -> None:
    actions = jax.random.uniform(jax.random.key(1), (STEPS, 4), minval=-1.0, maxval=1.0)
    seen = run(shifted(latency=1, noise=0.002), actions)
    truth = run(nominal(), jnp.concatenate([jnp.zeros((1, 4)), actions[:-1]]))
    assert truth.queued is None and truth.noise is None
    np.testing.assert_allclose(seen.physics.qpos, truth.physics.qpos, atol=1e-3)
    np.testing.assert_allclose(seen.reward, truth.reward, atol=1e-2)
    np.testing.assert_allclose(seen.failure_margin, truth.failure_margin, atol=1e-3)
    np.testing.assert_array_equal(seen.queued[:, 0], actions)
    error, where = np.asarray(seen.obs - truth.obs), np.array(nominal().robot.frame_positions)
    blur, rest = error[..., :18][..., where], error[..., :18][..., ~where]
    np.testing.assert_allclose(np.std(blur, axis=(0, 1)), 0.002, rtol=0.1)
    assert np.abs(rest).max() < 1e-3 and not error[..., 36:].any()
    np.testing.assert_array_equal(seen.obs[1:, :, 18:36], seen.obs[:-1, :, :18])
    flat = blur.reshape(STEPS, -1)
    assert abs(np.corrcoef(flat[0], flat[1])[0, 1]) < 0.3  # each step draws anew


def test_gain_scales_the_hands_motion_within_its_limits() -> None:
    env, up = shifted(gain=1.2), jnp.array([0.0, 0.0, 0.5, 0.0])
    state = env.reset_at(jnp.array([0.0, 0.65]), jnp.array([0.0, 0.85]))
    start, top = float(state.physics.mocap_pos[0, 2]), nominal().task.hand_high[2]
    moved = env._control(state, up).mocap_pos[0, 2]
    np.testing.assert_allclose(moved - start, 1.2 * 0.005, rtol=1e-4)
    under = state.physics.mocap_pos.at[0, 2].set(top - 0.0055)
    state = state.replace(physics=state.physics.replace(mocap_pos=under))
    np.testing.assert_allclose(env._control(state, up).mocap_pos[0, 2], top)


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
