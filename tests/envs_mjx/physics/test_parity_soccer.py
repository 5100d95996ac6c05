"""Bounded Soccer against MetaWorld's soccer-v3, replaying `soccer_golden.npz`, and mjx vs native.

The ball rolls without resistance, so a small difference in one touch grows for the rest of the
episode: MetaWorld's own unthinned scene on our version of MuJoCo ends 2-3 mm (median) and up to
17 cm (90th percentile) from the golden episodes (docs/tasks.md).
"""

import functools
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import RobotEnv, State, make

GOLDEN = pathlib.Path(__file__).parents[2] / "data" / "soccer_golden.npz"
STEPS, SLACK = 150, 5


class Replay(NamedTuple):
    """What our environment did on the golden actions; [episodes, steps, ...]."""

    first_obs: np.ndarray
    rewards: np.ndarray
    balls: np.ndarray
    success: np.ndarray


@functools.cache
def golden() -> Mapping[str, np.ndarray]:
    return dict(np.load(GOLDEN))


@functools.cache
def native() -> RobotEnv:
    return make("bounded_soccer", "native")


def roll(env: RobotEnv, state: State, actions: jax.Array) -> tuple[State, State]:
    """Apply `actions` [episodes, steps, 4]; the last states, and all [steps, episodes]."""

    def one_step(state: State, action: jax.Array) -> tuple[State, State]:
        state = jax.vmap(env.step)(state, action)
        return state, state

    quick = {"xla_backend_optimization_level": 0} if env.backend == "mjx" else {}

    @functools.partial(jax.jit, compiler_options={**env.compiler_options, **quick})
    def run(state: State, actions: jax.Array) -> tuple[State, State]:
        return jax.lax.scan(one_step, state, jnp.swapaxes(actions, 0, 1))

    return run(state, actions)


def golden_start(rows: np.ndarray) -> State:
    first = jnp.asarray(golden()["first_obs"][rows])
    return jax.jit(jax.vmap(native().reset_at))(first[:, 4:7], first[:, 36:39])


@functools.cache
def replay() -> Replay:
    data = golden()
    start = golden_start(np.arange(len(data["kinds"])))
    _, states = roll(native(), start, jnp.asarray(data["actions"], jnp.float32))
    by_episode = lambda leaf: np.swapaxes(np.asarray(leaf), 0, 1)
    return Replay(
        np.asarray(start.obs),
        by_episode(states.base_reward),
        by_episode(states.obs[:, :, 4:7]),
        by_episode(states.success),
    )


def test_first_observation_is_metaworlds() -> None:
    np.testing.assert_allclose(replay().first_obs, golden()["first_obs"], atol=5e-4)


@pytest.mark.parametrize("kind", ["random", "expert", "noisy"])
def test_native_agrees_with_metaworld(kind: str) -> None:
    data, mine = golden(), replay()
    rows = np.flatnonzero(data["kinds"] == kind)
    lengths = data["length"][rows]
    valid = np.arange(STEPS) < lengths[:, None]
    reward_error = np.abs(mine.rewards - data["rewards"])[rows][valid]
    assert np.median(reward_error) < 0.02
    last = (rows, lengths - 1)
    final_error = np.linalg.norm(mine.balls[last] - data["pucks"][last], axis=-1)
    assert np.median(final_error) < 0.015
    assert np.quantile(final_error, 0.75) < 0.06


def test_native_succeeds_where_metaworld_does() -> None:
    """Over all kinds: of noisy episodes alone MetaWorld's own scene agrees in 85 %."""
    data, mine = golden(), replay()
    reached = mine.success & (np.arange(STEPS) < data["length"][:, None] + SLACK)
    assert 30 < data["success"].sum() < 100
    assert np.mean(reached.any(axis=1) == data["success"]) >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_mjx_agrees_with_native_while_the_ball_is_touched() -> None:
    """From where MetaWorld's expert meets the ball; later the two part as the ball rolls."""
    rows = np.flatnonzero(golden()["kinds"] == "expert")[:8]
    actions = jnp.asarray(golden()["actions"][rows], jnp.float32)
    state, _ = roll(native(), golden_start(rows), actions[:, :30])
    expected, _ = roll(native(), state, actions[:, 30:45])
    actual, _ = roll(make("bounded_soccer", "mjx"), state, actions[:, 30:45])
    assert not np.any(actual.diverged)
    moved = np.linalg.norm(expected.obs[:, 4:6] - state.obs[:, 4:6], axis=1)
    assert np.sum(moved > 0.005) >= 4
    np.testing.assert_allclose(actual.obs[:, :3], expected.obs[:, :3], atol=0.003)
    apart = np.linalg.norm(actual.obs[:, 4:7] - expected.obs[:, 4:7], axis=1)
    assert np.median(apart) < 0.003
    assert np.median(np.abs(actual.base_reward - expected.base_reward)) < 0.05
