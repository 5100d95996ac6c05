"""The bridge to Brax's convention: the same episodes as our own form, and room for wrappers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import make
from envs_mjx.brax_env import BraxEnv

STEPS = 6


@pytest.fixture(scope="module")
def env():
    return make("bounded_push", "native", episode_limit=STEPS)


def test_an_episode_is_our_own_and_ends_by_truncation(env):
    bridge, key = BraxEnv(env), jax.random.key(0)
    assert (bridge.observation_size, bridge.action_size, bridge.episode_length) == (39, 4, STEPS)
    reset, step = jax.jit(bridge.reset), jax.jit(bridge.step)
    ours, theirs, own_step = jax.jit(env.reset)(key), reset(key), jax.jit(env.step)
    np.testing.assert_array_equal(theirs.obs, ours.obs)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 4)).astype(np.float32)
    for t, action in enumerate(actions):
        ours, theirs = own_step(ours, action), step(theirs, action)
        np.testing.assert_allclose(theirs.obs, ours.obs, atol=1e-6)
        assert float(theirs.reward) == pytest.approx(float(ours.reward), rel=1e-5)
        last = t == STEPS - 1
        assert float(theirs.done) == float(theirs.info["truncation"]) == float(last)
        assert int(theirs.info["steps"]) == t + 1
        assert float(theirs.metrics["failure_margin"]) == pytest.approx(
            float(ours.failure_margin), abs=1e-6
        )


def test_success_is_no_truncation(env):
    start = make("bounded_push", "native").reset_at(jnp.array([0.0, 0.6]), jnp.array([0.0, 0.62]))
    bridge = BraxEnv(env)
    state = bridge.reset(jax.random.key(0)).replace(data=start)
    state = jax.jit(bridge.step)(state, jnp.zeros(4))
    assert float(state.done) == float(state.metrics["success"]) == 1.0
    assert float(state.info["truncation"]) == 0.0


def test_a_wrappers_entries_survive_under_vmap_and_scan(env):
    """As trainers use it: batched, scanned, with fields of their own in `info`."""
    bridge = BraxEnv(env)

    @jax.jit
    def roll(key):
        state = jax.vmap(bridge.reset)(jax.random.split(key, 3))
        state = state.replace(info=state.info | {"first_obs": state.obs})
        step = lambda state, _: (jax.vmap(bridge.step)(state, jnp.zeros((3, 4))), state.done)
        return jax.lax.scan(step, state, None, STEPS)

    state, done = roll(jax.random.key(1))
    assert state.info["first_obs"].shape == (3, 39) and done.shape == (STEPS, 3)
    assert (np.asarray(state.done) == 1.0).all() and not np.asarray(done).any()
