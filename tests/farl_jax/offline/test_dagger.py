"""DAgger: who acts in turn, what is recorded, and what a clone gains from it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import BCConfig, DemosConfig, FarlConfig
from farl_jax.data import dataset
from farl_jax.data.rollout import unroll
from farl_jax.offline import dagger
from farl_jax.types import Normalizer
from tests.farl_jax.online.test_loop import NETS
from tests.toy import make_toy

NORMALIZER = Normalizer(jnp.zeros(2), jnp.ones(2))


def params(seed: int):
    return NETS.policy.init(jax.random.key(seed), jnp.zeros((1, 2)))


@pytest.fixture(scope="module")
def steps():
    """2000 steps of 32 toys in which task policy and clone take turns of 5."""
    env = make_toy(32)
    act = dagger.taking_turns(
        (NETS.policy, NETS.policy), params(0), params(1), NORMALIZER, env, 5.0
    )
    state = env.reset(jax.random.key(2))
    roll = jax.jit(lambda s, k: unroll(env, act, jnp.zeros(32, bool), s, k, 2000)[2])
    return jax.device_get(roll(state, jax.random.key(3)))


def test_the_demonstrator_answers_at_every_step(steps):
    np.testing.assert_array_equal(steps.decision.task_action, -1.0)
    assert (dataset.from_rollout(steps)["intended"] == -1.0).all()


def test_the_clone_acts_by_its_mean_and_the_task_policy_explores(steps):
    mean = NETS.policy.apply(params(1), steps.obs)[0]
    error = np.abs(steps.decision.action - mean)[..., 0]
    assert error[steps.decision.intervened].max() < 1e-5
    assert np.median(error[~steps.decision.intervened]) > 0.05


def test_turns_are_as_long_as_asked_and_episodes_begin_with_the_task_policy(steps):
    acts = steps.decision.intervened
    first = np.roll(steps.done, 1, axis=0)
    first[0] = True
    assert not acts[first].any()
    inside = ~first[1:]
    switched = (acts[1:] != acts[:-1])[inside]
    assert abs(switched.mean() - 1 / 5) < 0.01
    assert 0.3 < acts.mean() < 0.5


def test_answers_reach_where_the_demonstrations_do_not():
    """Demonstrations of a wrong answer far from where the clone goes are overruled there."""
    size = 256
    env = make_toy(16)
    far = np.random.default_rng(0).uniform(2.0, 3.0, (size, 2)).astype(np.float32)
    data = {name: np.zeros(size, kind) for name, kind in dataset.FIELDS.items()}
    data |= {"obs": far, "next_obs": far, "intended": np.full((size, 1), 1.0, np.float32)}
    data |= {"action": data["intended"], "episode": np.repeat(np.arange(8, dtype=np.int32), 32)}
    here = jnp.stack([jnp.linspace(0.3, 0.8, 20), jnp.linspace(0.0, 1.0, 20)], 1)

    def answer(rounds: int, interaction: str = "practice") -> float:
        config = FarlConfig(
            recovery_bc=BCConfig(members=2, steps=400, batch=128, learning_rate=3e-3),
            demos=DemosConfig(dagger_rounds=rounds, dagger_turn=5.0, interaction=interaction),
        )
        clones, _, practice = dagger.clone_recovery(
            env, (NETS.policy, NETS.policy), params(0), data, NORMALIZER, config, jax.random.key(0)
        )
        rounds = rounds if interaction == "practice" else 0
        assert practice.steps == rounds * env.num_envs * env.episode_limit
        assert (practice.failure_episodes > 0) == (rounds > 0)
        return float(jax.vmap(lambda p: NETS.policy.apply(p, here)[0])(clones).mean())

    assert answer(0) > 0.5
    assert answer(2) < -0.5
    assert answer(2, interaction="none") > 0.5
