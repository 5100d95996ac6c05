"""Every backend against MetaWorld's own classes, replaying the actions of `*_golden.npz`."""

import functools
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import BatchEnv, RobotEnv, State, make

DATA = pathlib.Path(__file__).parents[2] / "data"
HAS_WARP = importlib.util.find_spec("warp") is not None
GOLDEN_OF = {"bounded_push": "push", "obstructed_push": "push", "fragile_push_wall": "push_wall"}


class Replay(NamedTuple):
    """What our environment did on the golden actions; [episodes, steps, ...]."""

    first_obs: np.ndarray
    rewards: np.ndarray
    pucks: np.ndarray
    success: np.ndarray
    margins: np.ndarray


@functools.cache
def golden(task: str) -> Mapping[str, np.ndarray]:
    return dict(np.load(DATA / f"{GOLDEN_OF[task]}_golden.npz"))


def rows_of(task: str, kind: str, count: int | None = None) -> np.ndarray:
    return np.flatnonzero(golden(task)["kinds"] == kind)[:count]


def replay(env: RobotEnv, rows: np.ndarray, steps: int) -> Replay:
    data = golden(env.name)
    actions = jnp.asarray(data["actions"][rows, :steps], jnp.float32)
    first = jnp.asarray(data["first_obs"][rows])

    def one_step(state: State, action: jax.Array) -> tuple[State, tuple]:
        state = jax.vmap(env.step)(state, action)
        out = (state.base_reward, state.obs[:, 4:7], state.success, state.failure_margin)
        return state, out

    @functools.partial(jax.jit, compiler_options=dict(env.compiler_options))
    def run(first: jax.Array, actions: jax.Array) -> tuple:
        state = jax.vmap(env.reset_at)(first[:, 4:7], first[:, 36:39])
        return state.obs, jax.lax.scan(one_step, state, jnp.swapaxes(actions, 0, 1))[1]

    obs, out = run(first, actions)
    return Replay(np.asarray(obs), *(np.swapaxes(np.asarray(leaf), 0, 1) for leaf in out))


def check_against_metaworld(env: RobotEnv, rows: np.ndarray, steps: int, far: float) -> None:
    """Compare step by step up to each golden episode's end; `far` m is for the 90th percentile."""
    data = golden(env.name)
    mine = replay(env, rows, steps)
    lengths = np.minimum(data["length"][rows], steps)
    valid = np.arange(steps) < lengths[:, None]
    reward_error = np.abs(mine.rewards - data["rewards"][rows, :steps])[valid]
    assert np.median(reward_error) < 0.02
    assert np.mean(reward_error) < 0.4  # the reward jumps by up to 6 where the hold is lost
    last = (np.arange(len(rows)), lengths - 1)
    final_error = np.linalg.norm(mine.pucks[last] - data["pucks"][rows][last], axis=-1)
    assert np.median(final_error) < 0.005
    assert np.quantile(final_error, 0.9) < far
    # A success may come a step or two earlier or later; then the next steps decide.
    reached = (mine.success & (np.arange(steps) < lengths[:, None] + 5)).any(axis=1)
    expected = data["success"][rows] & (data["length"][rows] <= steps)
    assert np.mean(reached == expected) >= 0.95
    failed = ((mine.margins < 0.0) & valid).any(axis=1)
    assert np.mean(failed == (FAILED[env.name](env, rows, steps) & valid).any(axis=1)) >= 0.95


def left_the_rectangle(env: RobotEnv, rows: np.ndarray, steps: int) -> np.ndarray:
    """Whether MetaWorld's puck was out of bounds, [episodes, steps]."""
    area, pucks = env.task.rectangle, golden(env.name)["pucks"][rows, :steps]
    x, y = pucks[..., 0], pucks[..., 1]
    return (x < area.x_low) | (x > area.x_high) | (y < area.y_low) | (y > area.y_high)


def touched_the_wall(env: RobotEnv, rows: np.ndarray, steps: int) -> np.ndarray:
    """Whether MetaWorld's puck was in contact with its wall, [episodes, steps]."""
    return golden(env.name)["touches"][rows, :steps]


FAILED = {"bounded_push": left_the_rectangle, "fragile_push_wall": touched_the_wall}


CASES = [  # task, kind of episodes, steps, bound in m for the 90th percentile of the last puck
    ("bounded_push", "random", 120, 0.005),
    ("bounded_push", "expert", 150, 0.01),
    ("bounded_push", "noisy", 150, 0.03),
    ("fragile_push_wall", "random", 120, 0.005),
    ("fragile_push_wall", "expert", 200, 0.02),
    ("fragile_push_wall", "noisy", 200, 0.03),
]


@pytest.mark.parametrize(("task", "kind", "steps", "far"), CASES)
def test_native_agrees_with_metaworld(task: str, kind: str, steps: int, far: float) -> None:
    check_against_metaworld(native(task), rows_of(task, kind), steps, far)


@pytest.mark.parametrize("kind", ["straight", "shove"])
def test_hitting_the_wall_agrees_with_metaworld(kind: str) -> None:
    """The fingers hit it, or the puck; afterwards the two simulations soon part."""
    env, rows, steps = native("fragile_push_wall"), rows_of("fragile_push_wall", kind), 100
    data, mine = golden(env.name), replay(env, rows, steps)
    lengths = np.minimum(data["length"][rows], steps)
    valid = np.arange(steps) < lengths[:, None]
    failing, touching = mine.margins < 0.0, touched_the_wall(env, rows, steps)
    assert np.mean((failing & valid).any(axis=1) == (touching & valid).any(axis=1)) >= 0.95
    assert np.mean((failing == touching)[valid]) >= 0.95
    assert np.median(np.abs(mine.rewards - data["rewards"][rows, :steps])[valid]) < 0.05
    last = (np.arange(len(rows)), lengths - 1)
    final_error = np.linalg.norm(mine.pucks[last] - data["pucks"][rows][last], axis=-1)
    assert np.median(final_error) < 0.015


def test_golden_shoves_touch_the_wall() -> None:
    touched = golden("fragile_push_wall")["touches"].any(axis=1)
    assert touched[rows_of("fragile_push_wall", "shove")].mean() > 0.5
    assert not touched[rows_of("fragile_push_wall", "expert")].any()


def test_rewards_of_the_wall_cover_all_of_its_terms() -> None:
    """Otherwise agreeing on them would prove little."""
    data = golden("fragile_push_wall")
    rewards, y = data["rewards"], data["pucks"][..., 1]
    assert np.sum((rewards > 2.5) & (rewards < 9.9) & (y < 0.75)) > 200  # towards the midpoint
    assert np.sum((rewards > 5.5) & (rewards < 9.9) & (y > 0.75)) > 200  # towards the goal


@functools.cache
def native(task: str) -> RobotEnv:
    return make(task, "native")


def roll(env: RobotEnv, state: State, actions: jax.Array) -> State:
    """Apply `actions` [steps, episodes, 4] and return the last states [episodes]."""
    quick = {"xla_backend_optimization_level": 0}  # halves the time to compile MJX

    @functools.partial(jax.jit, compiler_options={**env.compiler_options, **quick})
    def run(state: State, actions: jax.Array) -> State:
        return jax.lax.scan(lambda s, a: (jax.vmap(env.step)(s, a), None), state, actions)[0]

    return run(state, actions)


def compare_with_native(
    backend: str, episodes: int, steps: int, task: str = "bounded_push", skip: int = 36
) -> None:
    """Start both `skip` steps late, where the fingers close on the puck and all contacts act."""
    kind = "shove" if task == "fragile_push_wall" else "expert"
    data, rows = golden(task), rows_of(task, kind, episodes)
    actions = jnp.swapaxes(jnp.asarray(data["actions"][rows], jnp.float32), 0, 1)
    native_env, other = native(task), make(task, backend)
    first = jnp.asarray(data["first_obs"][rows])
    state = jax.jit(jax.vmap(native_env.reset_at))(first[:, 4:7], first[:, 36:39])
    state = roll(native_env, state, actions[:skip])
    expected = roll(native_env, state, actions[skip : skip + steps])
    actual = roll(other, state, actions[skip : skip + steps])
    assert not np.any(actual.diverged)
    moved = np.linalg.norm(expected.obs[:, 4:6] - state.obs[:, 4:6], axis=1)
    assert np.median(moved) > 0.02
    np.testing.assert_allclose(actual.obs[:, :3], expected.obs[:, :3], atol=0.002)
    np.testing.assert_allclose(actual.obs[:, 4:7], expected.obs[:, 4:7], atol=0.004)
    np.testing.assert_allclose(actual.failure_margin, expected.failure_margin, atol=0.004)
    assert np.median(np.abs(actual.base_reward - expected.base_reward)) < 0.05


def test_mjx_agrees_with_native() -> None:
    compare_with_native("mjx", episodes=4, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("task", "kind", "steps"), [case[:3] for case in CASES])
def test_mjx_agrees_with_metaworld(task: str, kind: str, steps: int) -> None:
    check_against_metaworld(make(task, "mjx"), rows_of(task, kind), steps, 0.03)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["fragile_push_wall", "obstructed_push"])
def test_mjx_agrees_with_native_on_the_other_tasks(task: str) -> None:
    compare_with_native("mjx", episodes=4, steps=20, task=task)


@pytest.mark.slow
def test_a_large_batch_of_mjx_does_not_hang_and_is_its_rows() -> None:
    """Where its factorisations went to XLA's thread pool, 1,024 rows hung within 30 steps."""
    large, small = (BatchEnv(make("bounded_push", "mjx"), size) for size in (1024, 16))

    def run(env: BatchEnv) -> jax.Array:
        def step(state: State, key: jax.Array) -> tuple[State, None]:
            action = jnp.cos(jnp.arange(env.num_envs)[:, None] + jnp.arange(4.0))
            return env.step(state, action, key)[0], None

        keys = jax.random.split(jax.random.key(1), 30)
        state, _ = jax.lax.scan(step, env.reset(jax.random.key(0)), keys)
        return state.obs

    run = jax.jit(run, static_argnums=0, compiler_options=dict(large.compiler_options))
    np.testing.assert_allclose(run(large)[:16], run(small), atol=1e-3)


@pytest.mark.warp
@pytest.mark.timeout(600)
@pytest.mark.skipif(not HAS_WARP, reason="the extra `warp` (warp-lang) is not installed")
def test_warp_agrees_with_native() -> None:
    compare_with_native("warp", episodes=2, steps=20)


ON_GPU = pytest.mark.parametrize("backend", ["mjx", "warp"])


def needs_accelerator(backend: str) -> None:
    if jax.default_backend() == "cpu":
        pytest.skip("needs an accelerator")
    if backend == "warp" and not HAS_WARP:
        pytest.skip("the extra `warp` (warp-lang) is not installed")


@pytest.mark.gpu
@ON_GPU
def test_an_accelerator_agrees_with_native(backend: str) -> None:
    needs_accelerator(backend)
    compare_with_native(backend, episodes=8, steps=60)


@pytest.mark.gpu
@ON_GPU
def test_an_accelerator_agrees_with_metaworld(backend: str) -> None:
    needs_accelerator(backend)
    task, kind, steps, _ = CASES[1]
    check_against_metaworld(make(task, backend), rows_of(task, kind), steps, 0.03)


@pytest.mark.gpu
def test_mjx_on_an_accelerator_repeats_its_numbers() -> None:
    """Scatters may add in any order there; `warp` promises nothing (docs/gpu.md)."""
    needs_accelerator("mjx")
    env, rows = make("bounded_push", "mjx"), rows_of("bounded_push", "expert", 64)
    first, second = (replay(env, rows, 60) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
