"""Automatic resets and independence of rows, on the native backend."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from envs_mjx import BatchEnv, RobotEnv, State, make


@functools.cache
def short() -> RobotEnv:
    """Bounded Push with episodes of five steps, so that resets are frequent."""
    return make("bounded_push", "native", episode_limit=5)


@functools.cache
def step_fn() -> "jax.stages.Wrapped":
    return jax.jit(jax.vmap(short().step))


def row(state: State, index: int) -> State:
    return jax.tree.map(lambda leaf: leaf[index], state)


def same(first: State, second: State) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


def alike(first: State, second: State) -> None:
    """Equal but for rounding, which differs between two compiled programs."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), first, second)


def test_finished_rows_restart_and_keep_their_true_final_state() -> None:
    batch = BatchEnv(short(), 6)
    step = jax.jit(batch.step)
    state = jax.jit(batch.reset)(jax.random.key(0))
    state = state.replace(step_count=jnp.array([0, 4, 2, 0, 0, 0], jnp.int32))
    action, key = jnp.full((6, 4), 0.5), jax.random.key(1)
    next_state, final_state = step(state, action, key)
    same(final_state, step_fn()(state, action))
    np.testing.assert_array_equal(final_state.done, [False, True, False, False, False, False])
    for index in (0, 2, 3, 4, 5):
        same(row(next_state, index), row(final_state, index))
    alike(row(next_state, 1), row(jax.jit(batch.reset)(key), 1))
    assert not np.array_equal(next_state.obs[1], final_state.obs[1])
    assert final_state.step_count[1] == 5 and next_state.step_count[1] == 0


def test_nothing_leaks_into_the_next_episode() -> None:
    batch = BatchEnv(short(), 2)
    step = jax.jit(batch.step)
    failing = jax.jit(jax.vmap(short().reset_at, in_axes=(0, None)))(
        jnp.array([[0.3, 0.65], [0.0, 0.65]]), jnp.array([0.0, 0.85])
    )
    state = failing
    for count in range(1, 6):
        state, final = step(state, jnp.zeros((2, 4)), jax.random.key(count))
        np.testing.assert_array_equal(final.failing_steps, [count, 0])
    assert np.all(final.truncated)
    for leaf in (state.failing_steps, state.episode_return, state.step_count, state.reward):
        np.testing.assert_array_equal(leaf, [0, 0])
    assert not np.any(state.failure) and not np.any(state.done)
    alike(state, jax.jit(batch.reset)(jax.random.key(5)))


def test_reset_of_a_row_does_not_depend_on_the_others() -> None:
    few, many = (jax.jit(BatchEnv(short(), count).reset)(jax.random.key(2)) for count in (2, 7))
    alike(few, jax.tree.map(lambda leaf: leaf[:2], many))
    assert len(np.unique(np.asarray(many.object_start[:, 0]))) == 7


def test_step_of_a_row_does_not_depend_on_the_others() -> None:
    env = short()
    state = jax.jit(BatchEnv(env, 6).reset)(jax.random.key(3))
    action = jax.random.uniform(jax.random.key(4), (6, 4), minval=-1.0)
    changed = step_fn()(state, action.at[2].set(jnp.nan))
    expected = step_fn()(state, action)
    for index in (0, 1, 3, 4, 5):
        same(row(changed, index), row(expected, index))
    assert changed.diverged[2]


def test_vmapped_twice_equals_flat() -> None:
    env = short()
    flat = jax.jit(BatchEnv(env, 6).reset)(jax.random.key(5))
    action = jax.random.uniform(jax.random.key(6), (6, 4), minval=-1.0)
    split = lambda leaf: leaf.reshape(2, 3, *leaf.shape[1:])
    nested = jax.jit(jax.vmap(jax.vmap(env.step)))(jax.tree.map(split, flat), split(action))
    same(nested, jax.tree.map(split, step_fn()(flat, action)))


def test_batch_vmaps_over_seeds() -> None:
    batch = BatchEnv(short(), 3)
    keys = jax.random.split(jax.random.key(7), 2)

    def run(key: jax.Array) -> State:
        key_reset, key_steps = jax.random.split(key)

        def act(state: State, key: jax.Array) -> tuple[State, jax.Array]:
            state, final = batch.step(state, jnp.full((3, 4), 0.3), key)
            return state, final.done

        return jax.lax.scan(act, batch.reset(key_reset), jax.random.split(key_steps, 7))

    together, done = jax.jit(jax.vmap(run))(keys)
    alone = [jax.jit(run)(key)[0] for key in keys]
    for index in range(2):
        same(row(together, index), alone[index])
    np.testing.assert_array_equal(done.sum(axis=(1, 2)), [3, 3])
