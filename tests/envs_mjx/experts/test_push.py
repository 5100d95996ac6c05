"""The scripted controllers do what they are for, on the native backend."""

import functools
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_mjx import RobotEnv, State, make

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "data" / "push_golden.npz")
EPISODES, STEPS, TAKEOVER_MARGIN = 96, 160, 0.05


class Careless(NamedTuple):
    """Careless episodes [EPISODES], and the first moment of danger in each."""

    failed: np.ndarray  # bool
    edge: np.ndarray  # int, the edge nearest to the puck when it first failed
    endangered: np.ndarray  # bool
    danger: State  # the step on which the margin first fell below TAKEOVER_MARGIN


@functools.cache
def push() -> RobotEnv:
    return make("bounded_push", "native")


def select(mask: jax.Array, new: State, old: State) -> State:
    pick = lambda a, b: jnp.where(mask.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)
    return jax.tree.map(pick, new, old)


def edge_of(state: State) -> jax.Array:
    area = push().task.rectangle
    x, y = state.obs[:, 4], state.obs[:, 5]
    beyond = [area.x_low - x, x - area.x_high, area.y_low - y, y - area.y_high]
    return jnp.argmax(jnp.stack(beyond), axis=0)


@functools.cache
def careless_episodes() -> Careless:
    env = push()
    key_reset, key_traits, key_noise = jax.random.split(jax.random.key(0), 3)
    traits = jax.jit(jax.vmap(env.careless_traits))(jax.random.split(key_traits, EPISODES))

    def act(carry: tuple, key: jax.Array) -> tuple[tuple, None]:
        state, ended, failed, edge, endangered, danger = carry
        noise = 0.15 * jax.random.normal(key, (EPISODES, 4))
        moved = jax.vmap(env.step)(state, jax.vmap(env.careless)(state.obs, traits) + noise)
        ended |= moved.done
        first = moved.failure & ~failed & ~ended
        edge = jnp.where(first, edge_of(moved), edge)
        now = (moved.failure_margin < TAKEOVER_MARGIN) & ~moved.failure & ~endangered & ~ended
        now &= moved.failure_margin < state.failure_margin - 0.0005  # the puck is pushed outwards
        carry = (moved, ended, failed | first, edge, endangered | now, select(now, moved, danger))
        return carry, None

    state = jax.jit(jax.vmap(env.reset))(jax.random.split(key_reset, EPISODES))
    no = jnp.zeros(EPISODES, bool)
    carry = (state, no, no, jnp.zeros(EPISODES, jnp.int32), no, state)
    run = jax.jit(lambda c, keys: jax.lax.scan(act, c, keys)[0])
    _, _, failed, edge, endangered, danger = run(carry, jax.random.split(key_noise, STEPS))
    return Careless(np.asarray(failed), np.asarray(edge), np.asarray(endangered), danger)


def test_experts_first_action_is_metaworlds() -> None:
    rows = GOLDEN["kinds"] == "expert"
    got = jnp.clip(
        jax.jit(jax.vmap(push().expert))(jnp.asarray(GOLDEN["first_obs"][rows])), -1.0, 1.0
    )
    np.testing.assert_allclose(got, GOLDEN["actions"][rows, 0], atol=1e-3)


def test_careless_operator_fails_often_and_over_every_edge() -> None:
    episodes = careless_episodes()
    assert 0.35 <= episodes.failed.mean() <= 0.7
    share = np.bincount(episodes.edge[episodes.failed], minlength=4) / episodes.failed.sum()
    assert share.min() > 0.08


def test_recovery_prevents_most_failures() -> None:
    env, episodes = push(), careless_episodes()

    def act(carry: tuple[State, jax.Array], _: None) -> tuple[tuple[State, jax.Array], None]:
        state, failed = carry
        state = jax.vmap(env.step)(state, jax.vmap(env.recovery)(state.obs))
        return (state, failed | state.failure), None

    start = (episodes.danger, jnp.zeros(EPISODES, bool))
    run = jax.jit(lambda carry: jax.lax.scan(act, carry, None, length=80)[0])
    end, failed = run(start)
    endangered = episodes.endangered
    assert endangered.sum() > 30
    assert np.mean(episodes.failed[endangered]) > 0.6  # what carelessness alone leads to
    assert np.mean(failed[endangered]) < 0.25
    assert np.median(end.failure_margin[endangered]) > TAKEOVER_MARGIN
