"""A budget in episodes: exact, whole episodes between updates, and nothing learnt beyond it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import AdaptationConfig
from farl_jax.methods import METHODS
from farl_jax.online.budget import Budget, Progress, counted_steps
from farl_jax.online.counters import Counters
from farl_jax.online.loop import make_online, train
from farl_jax.storage import checkpoint
from farl_jax.world_model.adaptation import seen_steps
from tests.farl_jax.online.test_loop import (
    GATED,
    NETS,
    assert_identical,
    frozen,
    gate,
    recount,
    run,
)
from tests.toy import LIMIT, make_toy

__all__ = ["frozen"]  # a fixture
DONE = np.array([[0, 0], [1, 0], [0, 1], [0, 0], [1, 1], [0, 0]], bool)


def with_budget(num_envs, **online):
    changes = {"num_envs": num_envs, "rollout": 2 * LIMIT, "critic_warmup": 0} | online
    return dataclasses.replace(GATED, online=dataclasses.replace(GATED.online, **changes))


def robot(**online):
    """One environment, an update after each episode."""
    return with_budget(1, **{"whole_episodes": 1, "episodes": 5} | online)


def phase_of(config, method="uni_o4"):
    return make_online(make_toy(config.online.num_envs), NETS, config, METHODS[method])


@pytest.mark.parametrize(
    ("whole", "left", "wanted"),
    [
        (1, None, [[1, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, 0]]),
        (2, None, [[1, 1], [1, 1], [1, 1], [1, 1], [1, 1], [0, 0]]),
        (0, 1, [[1, 1], [1, 0], [0, 0], [0, 0], [0, 0], [0, 0]]),
        (0, 2, [[1, 1], [1, 1], [1, 1], [0, 0], [0, 0], [0, 0]]),
        (0, 3, [[1, 1], [1, 1], [1, 1], [1, 1], [1, 0], [0, 0]]),
        (1, 1, [[1, 1], [1, 0], [0, 0], [0, 0], [0, 0], [0, 0]]),
        (1, 9, [[1, 1], [1, 1], [0, 1], [0, 0], [0, 0], [0, 0]]),
        (0, 9, np.ones((6, 2))),
    ],
)
def test_the_counted_steps_of_known_rollouts(whole, left, wanted):
    left = None if left is None else jnp.asarray(left)
    found = counted_steps(jnp.asarray(DONE), whole, left)
    np.testing.assert_array_equal(found, np.array(wanted, bool))


def test_progress_of_a_known_state():
    state = type("State", (), {})()
    state.env_steps, state.counters = np.int32(700), Counters.zero().replace(episodes=np.int32(7))
    assert Budget(with_budget(4).online, 4).progress(state) == Progress(5, 700, 7)  # of 160 steps
    whole = Budget(with_budget(2, whole_episodes=2, episodes=8).online, 2)
    done = whole.progress(state)
    assert done == Progress(2, 700, 7) and not whole.spent(done, 701) and whole.spent(done, 700)
    assert whole.spent(done._replace(episodes=8), 701)


@pytest.mark.parametrize("config", [with_budget(16, episodes=37), robot(), robot(episodes=8)])
def test_a_run_ends_with_exactly_its_episodes(frozen, config):
    phase, most = phase_of(config), config.online.episodes
    state, kept = phase.init(frozen, jax.random.key(7)), []
    done = phase.budget.progress(state)
    while not phase.budget.spent(done, 10**6):
        state, steps = phase.collect(state, frozen, gate(np.inf))
        kept.append(jax.device_get(steps))
        done = phase.budget.after(done, state)
        state, _ = phase.update(state, frozen, steps)
    assert int(state.counters.episodes) == most == done.episodes
    *_, (last, _) = train(phase, phase.init(frozen, jax.random.key(7)), frozen, gate(np.inf), 10**6)
    assert_identical(last, state)
    counted = np.concatenate([steps.counted for steps in kept])
    ends = np.concatenate([steps.done for steps in kept])
    assert (counted & ends).sum() == most and int(state.env_steps) == counted.sum() == done.steps
    order = np.flatnonzero((counted & ends).reshape(-1))
    assert order[-1] == np.flatnonzero(counted.reshape(-1))[-1]  # the last step ends the last one


def test_whole_episodes_begin_with_a_start_and_end_with_an_end(frozen):
    """The observation's second number is the share of the episode that has gone."""
    phase = phase_of(robot())
    state, _, steps = run(phase, frozen, np.inf, rounds=5)
    rounds = jax.tree.map(lambda x: x.reshape(5, 2 * LIMIT, *x.shape[1:]), steps)
    for i in range(5):
        counted = rounds.counted[i, :, 0]
        length = counted.sum()
        assert counted[:length].all() and rounds.done[i, :length, 0].sum() == 1
        assert rounds.obs[i, 0, 0, 1] == 0.0 and rounds.done[i, length - 1, 0]
    only = jax.tree.map(lambda x: x[steps.counted[:, 0]], steps)
    for name, value in recount(only).items():
        np.testing.assert_allclose(getattr(state.counters, name), value, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("method", ["farl", "p3o", "cpo"])
def test_nothing_is_learnt_from_steps_that_do_not_count(frozen, method):
    """Rewards and failures there may be anything."""
    config = robot(minibatches=2)
    config = dataclasses.replace(config, adaptation=AdaptationConfig(every=0))
    phase = phase_of(config, method)
    first = ({"cost_value": frozen.value} if METHODS[method].constrained else {}) | {}
    state = phase.init(frozen, jax.random.key(7), *first.values())
    state, steps = phase.collect(state, frozen, gate(np.inf))
    assert 0 < steps.counted.sum() < steps.counted.size
    other = steps.replace(
        reward=jnp.where(steps.counted, steps.reward, 77.0),
        failure=jnp.where(steps.counted, steps.failure, True),
        first_failure=jnp.where(steps.counted, steps.first_failure, True),
        failing_steps=jnp.where(steps.counted, steps.failing_steps, 3),
    )
    copy = jax.tree.map(jnp.copy, state)
    learnt, metrics = phase.update(state, frozen, steps)
    same, again = phase.update(copy, frozen, other)
    assert_identical(learnt.learners, same.learners)
    assert_identical(metrics, again)
    seen = seen_steps(steps, frozen.normalizer)
    np.testing.assert_array_equal(seen["unusable"], ~steps.counted)


def test_a_run_of_episodes_saved_and_restored_goes_on_exactly(frozen, tmp_path):
    config = robot(episodes=4)
    phase, states = phase_of(config), []
    start = lambda: phase.init(frozen, jax.random.key(7))
    for state, _ in train(phase, start(), frozen, gate(np.inf), 10**6):
        states.append(jax.tree.map(jnp.copy, state))
    assert len(states) == 4
    checkpoint.save(tmp_path, 2, {"online": states[1]}, {"task": "toy"})
    abstract = {"online": jax.eval_shape(phase.init, frozen, jax.random.key(0))}
    _, items, _ = checkpoint.restore(tmp_path, abstract, expect={"task": "toy"})
    assert phase.budget.progress(items["online"]).updates == 2
    rest = [s for s, _ in train(phase, items["online"], frozen, gate(np.inf), 10**6)]
    assert len(rest) == 2
    assert_identical(rest[-1], states[-1])
