"""Fragile Push Wall and Obstructed Push: what fails, what is refused, and their controllers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from envs_mjx import EnvError, RobotEnv, State, make
from envs_mjx.robots import sawyer_scene
from envs_mjx.tasks.obstructed_push import _RADII, arm_segments
from envs_mjx.tasks.task import Episode, Readings
from experiments.bench.tasks import measure

GOAL = (0.0, 0.88)


@functools.cache
def env_of(task: str) -> RobotEnv:
    return make(task, "native")


@functools.cache
def start_of(task: str) -> "jax.stages.Wrapped":
    return jax.jit(env_of(task).reset_at)


@functools.cache
def step_of(task: str) -> "jax.stages.Wrapped":
    return jax.jit(env_of(task).step)


def wall_state(x: float, y: float) -> State:
    return start_of("fragile_push_wall")(jnp.array([x, y]), jnp.array(GOAL))


@pytest.mark.parametrize(
    ("x", "y", "distance"),
    [
        (0.1, 0.65, 0.07),  # before the wall, whose face is at y = 0.74
        (0.1, 0.83, 0.05),  # behind it
        (-0.09, 0.75, 0.05),  # beside its end at x = -0.02
        (-0.05, 0.70, 0.03),  # 3 and 4 cm from the corner
        (0.0, 0.73, -0.01),  # pushed in
    ],
)
def test_margin_is_the_distance_of_puck_and_wall(x: float, y: float, distance: float) -> None:
    state = wall_state(x, y)
    np.testing.assert_allclose(state.failure_margin, distance - 0.001, atol=1e-6)
    assert bool(state.failure) == (distance < 0.001)


def test_margin_counts_the_way_over_the_wall() -> None:
    task, nothing = env_of("fragile_push_wall").task, jnp.zeros(3)
    puck = jnp.array([0.1, 0.75, 0.17])  # its lower face is 3 cm above the wall
    readings = Readings(nothing, nothing, nothing, nothing, puck, jnp.zeros(4), {})
    margin = task.failure_margin(readings, Episode(nothing, nothing, nothing))
    np.testing.assert_allclose(margin, 0.029, atol=1e-6)


@pytest.mark.parametrize("yaw", [0.0, 0.4, np.pi / 4])
def test_a_puck_that_slides_into_the_wall_is_stopped_and_fails(yaw: float) -> None:
    """However it is turned: it is round, though its collider with the table is a box."""
    state = wall_state(0.1, 0.70)
    qpos = state.physics.qpos.at[12].set(np.cos(yaw / 2)).at[15].set(np.sin(yaw / 2))
    qvel = state.physics.qvel.at[10].set(1.5)  # m/s in y
    state = state.replace(physics=state.physics.replace(qpos=qpos, qvel=qvel))
    failures, nearest = 0, np.inf
    for _ in range(12):
        state = step_of("fragile_push_wall")(state, jnp.zeros(4))
        failures += bool(state.failure)
        nearest = min(nearest, float(state.failure_margin))
    assert failures > 0
    assert -0.008 < nearest < 0.0  # soft contact: a fast puck goes in by a few millimetres
    assert state.obs[5] < 0.725  # and does not come out on the other side


def test_a_puck_that_stops_just_before_the_wall_has_not_touched_it() -> None:
    state = wall_state(0.1, 0.717)
    for _ in range(3):
        state = step_of("fragile_push_wall")(state, jnp.zeros(4))
    assert 0.001 < state.failure_margin < 0.003 and state.failing_steps == 0


def test_the_vase_is_as_far_as_in_the_films_at_the_start() -> None:
    state = start_of("obstructed_push")(jnp.array([0.0, 0.65]), jnp.array([0.0, 0.85]))
    np.testing.assert_allclose(state.failure_margin, 0.17, atol=0.01)


def mesh_distance(visual: mujoco.MjModel, qpos: np.ndarray, task: object) -> float:
    """Least distance of all vertices of MetaWorld's forearm, wrist and hand to the vase, m."""
    data = mujoco.MjData(visual)
    data.qpos[:] = qpos
    mujoco.mj_kinematics(visual, data)
    points = []
    for name in ("right_l4", "right_l5", "right_l6", "right_hand"):
        for geom in np.flatnonzero(visual.geom_bodyid == visual.body(name).id):
            if visual.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
                mesh = visual.geom_dataid[geom]
                first, count = visual.mesh_vertadr[mesh], visual.mesh_vertnum[mesh]
                vertices = visual.mesh_vert[first : first + count]
                frame = data.geom_xmat[geom].reshape(3, 3)
                points.append(vertices @ frame.T + data.geom_xpos[geom])
    points = np.concatenate(points)
    axis = np.clip(points[:, 2], 0.0, task.vase_height - task.vase_radius)
    away = points - np.stack([*np.broadcast_arrays(*task.vase_base, axis)], axis=1)
    return float(np.linalg.norm(away, axis=1).min() - task.vase_radius)


@functools.cache
def towards_the_vase() -> list[State]:
    """The hand is driven into the vase, low and then high."""
    state = start_of("obstructed_push")(jnp.array([-0.1, 0.65]), jnp.array([0.0, 0.85]))
    states = [state]
    for index in range(70):
        way = jnp.array([1.0, 0.3, -0.5 if index < 30 else 0.6, 0.0])
        states.append(step_of("obstructed_push")(states[-1], way))
    return states


def test_the_arms_capsules_follow_metaworlds_meshes() -> None:
    env = env_of("obstructed_push")
    visual = sawyer_scene.build_visual_model(env.task.scene_file, lambda spec: None)
    outside = [state for state in towards_the_vase() if state.failure_margin > -0.03]
    assert len(outside) > 15
    for state in outside[::5]:
        truth = mesh_distance(visual, np.asarray(state.physics.qpos), env.task)
        np.testing.assert_allclose(state.failure_margin, truth, atol=0.012)


def test_the_vase_is_sensed_and_does_not_push_back() -> None:
    margins = np.array([state.failure_margin for state in towards_the_vase()])
    assert margins[-1] < -0.05 and not towards_the_vase()[-1].diverged
    assert [bool(state.failure) for state in towards_the_vase()] == list(margins < 0.0)
    assert towards_the_vase()[-1].failing_steps == (margins < 0.0).sum()


def test_every_capsule_counts() -> None:
    """A vase that stands around the middle of any one of them is touched."""
    env = env_of("obstructed_push")
    segments = arm_segments(env._read(env._settled_sensordata))
    assert len(segments) == len(_RADII) == 6
    for one, other in segments:
        x, y, z = np.asarray((one + other) / 2.0)
        thin = make("obstructed_push", "native", vase_base=(x, y), vase_radius=0.005)
        tall = make(thin.task, "native", vase_height=float(z) + 0.05)
        assert tall.reset_at(jnp.array([0.0, 0.6]), jnp.array([0.0, 0.85])).failure


def test_vase_and_wall_are_drawn_where_they_are_sensed() -> None:
    vase = make("obstructed_push", "native", vase_base=(0.3, 0.6)).task
    drawn = sawyer_scene.build_visual_model(vase.scene_file, vase.edit_visuals)
    glass = (drawn.geom_rgba[:, 3] == np.float32(0.6)) & (drawn.geom_rgba[:, 2] > 0.9)
    np.testing.assert_allclose(drawn.geom_pos[glass, :2], [[0.3, 0.6]] * 2)
    top = drawn.geom_pos[glass, 2] + drawn.geom_size[glass, [1, 2]]
    np.testing.assert_allclose(top, [vase.vase_height - vase.vase_radius, vase.vase_height])
    moved = (0.1, 0.78, 0.06)
    wall = make("fragile_push_wall", "native", wall_center=moved).task
    drawn = sawyer_scene.build_visual_model(wall.scene_file, wall.edit_visuals)
    np.testing.assert_allclose(drawn.body("wall").pos, moved)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "obstructed_push", "vase_radius": 0.0}, "vase_radius is 0.0"),
        ({"task": "obstructed_push", "vase_height": 0.1}, "vase_height is 0.1.*vase_radius 0.16"),
        ({"task": "obstructed_push", "episode_limit": 0}, "episode_limit is 0"),
        ({"task": "obstructed_push", "object_x": (0.1, -0.1)}, "object_x is"),
        ({"task": "obstructed_push", "vase_hight": 0.4}, "did you mean 'vase_height'"),
        ({"task": "fragile_push_wall", "wall_half_size": (0.1, 0.0, 0.1)}, "wall_half_size is"),
        ({"task": "fragile_push_wall", "contact_tolerance": -0.1}, "contact_tolerance is -0.1"),
        ({"task": "fragile_push_wall", "object_y": (0.6, 0.72)}, "object_y can touch the wall"),
        ({"task": "fragile_push_wall", "success_radius": 0.0}, "success_radius is 0.0"),
    ],
)
def test_errors_say_what_is_wrong(arguments: dict, message: str) -> None:
    with pytest.raises(EnvError, match=message) as caught:
        make(backend="native", **arguments)
    assert "\n" not in str(caught.value)


class Floor(NamedTuple):
    """What a task's controllers must reach in few episodes; docs/tasks.md has many."""

    success: float
    recovery: float


@pytest.mark.parametrize(
    ("task", "floor"),
    [
        ("obstructed_push", Floor(0.95, 0.8)),
        ("fragile_push_wall", Floor(0.95, 0.8)),
    ],
)
@pytest.mark.slow  # three programs each; `farl tasks` measures the same at length
def test_controllers_do_what_they_are_for(task: str, floor: Floor) -> None:
    env = env_of(task)
    row = measure(task, 48, seed=3)
    assert row["diverged"] == 0
    assert row["expert_success"]["rate"] >= floor.success
    assert row["expert_failure"]["rate"] <= 0.02
    assert 0.2 < row["careless_failure"]["rate"] < 0.7
    assert row["recovery"]["count"] > 15 and row["recovery"]["rate"] >= floor.recovery
    assert row["recovery_failure"]["rate"] <= 0.2
    np.testing.assert_allclose(row["expert_return"]["mean"], env.expert_return, rtol=0.05)
    np.testing.assert_allclose(row["random_return"]["mean"], env.random_return, atol=6.0)
