"""The bridge to Brax's convention: our own episodes, room for wrappers, and Brax's PPO learning."""

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


def test_an_episode_is_our_own_and_its_time_limit_is_left_to_the_wrapper(env):
    bridge, key = BraxEnv(env), jax.random.key(0)
    assert (bridge.observation_size, bridge.action_size, bridge.episode_length) == (39, 4, STEPS)
    reset, step = jax.jit(bridge.reset), jax.jit(bridge.step)
    ours, theirs, own_step = jax.jit(env.reset)(key), reset(key), jax.jit(env.step)
    actions = np.random.default_rng(0).uniform(-1, 1, (STEPS, 4)).astype(np.float32)
    for action in actions:
        np.testing.assert_allclose(theirs.obs, ours.obs, atol=1e-6)
        ours, theirs = own_step(ours, action), step(theirs, action)
        assert float(theirs.reward) == pytest.approx(float(ours.reward), rel=1e-5)
        margin = float(theirs.metrics["failure_margin"])
        assert margin == pytest.approx(float(ours.failure_margin), abs=1e-6)
    assert bool(ours.truncated) and float(theirs.done) == 0.0


def test_success_ends_the_episode(env):
    start = make("bounded_push", "native").reset_at(jnp.array([0.0, 0.6]), jnp.array([0.0, 0.62]))
    bridge = BraxEnv(env)
    state = bridge.reset(jax.random.key(0)).replace(pipeline_state=start)
    state = jax.jit(bridge.step)(state, jnp.zeros(4))
    assert float(state.done) == float(state.metrics["success"]) == 1.0


def test_a_wrappers_entries_survive_under_vmap_and_scan(env):
    """As trainers use it: batched, scanned, with fields of their own in `info`."""
    bridge = BraxEnv(env)

    @jax.jit
    def roll(key):
        state = jax.vmap(bridge.reset)(jax.random.split(key, 3))
        state = state.replace(info={"first_obs": state.obs})
        step = lambda state, _: (jax.vmap(bridge.step)(state, jnp.zeros((3, 4))), state.obs)
        return jax.lax.scan(step, state, None, STEPS)

    state, obs = roll(jax.random.key(1))
    np.testing.assert_array_equal(state.info["first_obs"], obs[0])
    assert np.abs(np.asarray(state.obs) - obs[0]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_braxs_ppo_learns_bounded_push(monkeypatch):
    """A third party's trainer: its evaluations rise far above those of its first policy.

    Brax 0.14.2 calls a function that jax 0.10 has taken away; what it did is put back.
    """
    stack = lambda tree, devices: jax.tree.map(lambda x: jnp.stack([x] * len(devices)), tree)
    monkeypatch.setattr(jax, "device_put_replicated", stack, raising=False)
    ppo = pytest.importorskip("brax.training.agents.ppo.train", reason="pip install brax")
    bridge, returns = BraxEnv(make("bounded_push", "native")), []
    ppo.train(
        environment=bridge,
        num_timesteps=400_000,
        num_envs=128,
        episode_length=bridge.episode_length,
        unroll_length=32,
        batch_size=128,
        num_minibatches=8,
        num_updates_per_batch=5,
        learning_rate=3e-4,
        entropy_cost=1e-3,
        discounting=0.99,
        reward_scaling=0.01,
        normalize_observations=True,
        num_evals=5,
        num_eval_envs=64,
        progress_fn=lambda step, row: returns.append(float(row["eval/episode_reward"])),
    )
    assert returns[-1] > max(100.0, 3 * returns[0]), returns
