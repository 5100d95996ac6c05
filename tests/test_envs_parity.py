"""Every backend against MetaWorld's own push-v3, replaying the actions of `push_golden.npz`."""

import functools
import importlib.util
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import SawyerEnv, State, make

GOLDEN = pathlib.Path(__file__).parent / "data" / "push_golden.npz"
HAS_WARP = importlib.util.find_spec("warp") is not None


class Replay(NamedTuple):
    """What our environment did on the golden actions; [episodes, steps, ...]."""

    first_obs: np.ndarray
    rewards: np.ndarray
    pucks: np.ndarray
    success: np.ndarray
    margins: np.ndarray


@functools.cache
def golden() -> Mapping[str, np.ndarray]:
    return dict(np.load(GOLDEN))


def rows_of(kind: str, count: int | None = None) -> np.ndarray:
    return np.flatnonzero(golden()["kinds"] == kind)[:count]


def replay(env: SawyerEnv, rows: np.ndarray, steps: int) -> Replay:
    data = golden()
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


def check_against_metaworld(env: SawyerEnv, rows: np.ndarray, steps: int, far: float) -> None:
    """Compare step by step up to each golden episode's end; `far` m is for the 90th percentile."""
    data = golden()
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
    area = env.task.rectangle
    x, y = data["pucks"][rows, :steps, 0], data["pucks"][rows, :steps, 1]
    outside = (x < area.x_low) | (x > area.x_high) | (y < area.y_low) | (y > area.y_high)
    failed = ((mine.margins < 0.0) & valid).any(axis=1)
    assert np.mean(failed == (outside & valid).any(axis=1)) >= 0.95


@pytest.mark.parametrize(
    ("kind", "steps", "far"), [("random", 120, 0.005), ("expert", 150, 0.01), ("noisy", 150, 0.03)]
)
def test_native_agrees_with_metaworld(kind: str, steps: int, far: float) -> None:
    check_against_metaworld(make("bounded_push", "native"), rows_of(kind), steps, far)


def roll(env: SawyerEnv, state: State, actions: jax.Array) -> State:
    """Apply `actions` [steps, episodes, 4] and return the last states [episodes]."""
    quick = {"xla_backend_optimization_level": 0}  # halves the time to compile MJX

    @functools.partial(jax.jit, compiler_options={**env.compiler_options, **quick})
    def run(state: State, actions: jax.Array) -> State:
        return jax.lax.scan(lambda s, a: (jax.vmap(env.step)(s, a), None), state, actions)[0]

    return run(state, actions)


def compare_with_native(backend: str, episodes: int, steps: int) -> None:
    """Start both where the fingers close on the puck, so that every contact takes part."""
    data, rows = golden(), rows_of("expert", episodes)
    actions = jnp.swapaxes(jnp.asarray(data["actions"][rows], jnp.float32), 0, 1)
    native, other = make("bounded_push", "native"), make("bounded_push", backend)
    first = jnp.asarray(data["first_obs"][rows])
    state = jax.jit(jax.vmap(native.reset_at))(first[:, 4:7], first[:, 36:39])
    state = roll(native, state, actions[:36])
    expected = roll(native, state, actions[36 : 36 + steps])
    actual = roll(other, state, actions[36 : 36 + steps])
    assert not np.any(actual.diverged)
    moved = np.linalg.norm(expected.obs[:, 4:6] - state.obs[:, 4:6], axis=1)
    assert np.median(moved) > 0.02
    np.testing.assert_allclose(actual.obs[:, :3], expected.obs[:, :3], atol=0.002)
    np.testing.assert_allclose(actual.obs[:, 4:7], expected.obs[:, 4:7], atol=0.004)
    assert np.median(np.abs(actual.base_reward - expected.base_reward)) < 0.05


def test_mjx_agrees_with_native() -> None:
    compare_with_native("mjx", episodes=4, steps=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("kind", "steps"), [("random", 120), ("expert", 150), ("noisy", 150)])
def test_mjx_agrees_with_metaworld(kind: str, steps: int) -> None:
    check_against_metaworld(make("bounded_push", "mjx"), rows_of(kind), steps, 0.03)


@pytest.mark.warp
@pytest.mark.timeout(600)
@pytest.mark.skipif(not HAS_WARP, reason="the extra `warp` (warp-lang) is not installed")
def test_warp_agrees_with_native() -> None:
    compare_with_native("warp", episodes=2, steps=20)


@pytest.mark.gpu
def test_mjx_on_an_accelerator_agrees_with_native() -> None:
    if jax.default_backend() == "cpu":
        pytest.skip("needs an accelerator")
    compare_with_native("mjx", episodes=8, steps=60)
