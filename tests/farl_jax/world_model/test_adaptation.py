"""The world model's learning online: which windows are kept, what a batch holds, that it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import AdaptationConfig, WorldModelConfig
from farl_jax.data.dataset import from_rollout
from farl_jax.data.ring import create_ring, draw, store
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.methods import METHODS
from farl_jax.online.loop import current, make_online, train
from farl_jax.storage import checkpoint
from farl_jax.types import Normalizer
from farl_jax.world_model import learning
from farl_jax.world_model.adaptation import (
    make_adaptation,
    seen_steps,
    start_past,
    usable_windows,
    with_labels,
)
from farl_jax.world_model.latent import LatentModel
from farl_jax.world_model.windows import sample_windows, to_windows
from tests.farl_jax.online.test_loop import GATED, NETS, assert_identical, frozen, gate, raw  # noqa: F401
from tests.parameters import random_parameters
from tests.toy import make_toy

WORLD = dataclasses.replace(GATED.world_model, learning_rate=1e-3)
ADAPT = AdaptationConfig(every=2, windows=32, failing_windows=16, windows_per_rollout=8)
ADAPTING = dataclasses.replace(GATED, adaptation=ADAPT)
MODEL = LatentModel(WORLD, 2, 1)
IDENTITY = Normalizer(jnp.zeros(2), jnp.ones(2))


@pytest.fixture(scope="module")
def steps():
    """60 steps of 16 walkers that are drawn to the cliff."""
    env = make_toy(16)

    def act(memory, state, key):
        return memory, plain_decision(jax.random.uniform(key, (16, 1), minval=-1.0, maxval=1.3))

    roll = jax.jit(lambda key: unroll(env, act, None, env.reset(key), key, 60)[2])
    return roll(jax.random.key(0))


@pytest.fixture(scope="module")
def demos(steps):
    return to_windows(from_rollout(steps), WORLD)[0]


def numbered(length, envs):
    """Steps whose reward says which step of which environment they are."""
    number = jnp.arange(length)[:, None] + 100.0 * jnp.arange(envs)
    flag = jnp.zeros((length, envs), bool)
    wide = {"obs": (2,), "next_obs": (2,), "action": (1,)}
    rows = {k: jnp.broadcast_to(number[..., None], (length, envs, *n)) for k, n in wide.items()}
    return rows | {"reward": number, "failure": flag, "terminated": flag}


def test_a_ring_keeps_the_newest_windows_each_whole_and_of_one_environment():
    ring, rows = create_ring(10, 3, 2, 1), numbered(8, 4)
    eligible = jnp.zeros((6, 4), bool).at[1:5, 2].set(True)  # four windows of environment 2
    ring = store(ring, rows, eligible, jax.random.key(0), 8)
    assert int(ring.stored) == 4
    kept = np.asarray(ring.fields["reward"])
    assert sorted(kept[:4, 0]) == [201, 202, 203, 204] and not kept[4:].any()
    np.testing.assert_array_equal(kept[:4] - kept[:4, :1], [[0, 1, 2]] * 4)
    everything = jnp.ones((6, 4), bool)
    for i in range(4):
        ring = store(ring, rows, everything, jax.random.key(i), 8)
    assert int(ring.stored) == 36
    np.testing.assert_array_equal(np.diff(ring.fields["reward"], axis=1), np.ones((10, 2)))
    assert len(np.unique(np.asarray(ring.fields["reward"])[:, 0])) >= 8  # no window twice a round
    drawn = draw(ring, jax.random.key(5), 50)
    assert drawn["obs"].shape == (3, 50, 2) and drawn["reward"].shape == (3, 50)


def test_nothing_is_stored_where_nothing_is_eligible():
    ring = create_ring(10, 3, 2, 1)
    after = store(ring, numbered(8, 4), jnp.zeros((6, 4), bool), jax.random.key(0), 8)
    assert_identical(after, ring)


def test_windows_lie_in_one_episode_and_do_not_begin_deep_in_a_failure(steps):
    usable, failing = map(np.asarray, usable_windows(seen_steps(steps, IDENTITY, 1.0), 3, cap=2))
    host = jax.device_get(steps)
    expected = np.zeros_like(usable)
    for t in range(58):
        for n in range(16):
            crosses = (host.terminated | host.truncated)[t : t + 2, n].any()
            expected[t, n] = not crosses and host.failing_steps[t, n] <= 2
    np.testing.assert_array_equal(usable, expected)
    inside = np.stack([host.failure[i : i + 58] for i in range(3)]).any(0)
    np.testing.assert_array_equal(failing, expected & inside)
    assert 20 < failing.sum() < usable.sum() < usable.size


def test_a_window_in_which_the_simulation_gave_up_is_left_out(steps):
    broken = steps.replace(diverged=steps.diverged.at[30].set(True))
    usable, _ = usable_windows(seen_steps(broken, IDENTITY, 1.0), 3, cap=100)
    assert not usable[28:31].any() and usable[27].any() and usable[31].any()


@pytest.mark.parametrize("window", [1, 2, 7, 12])
def test_steps_are_labelled_once_it_is_known_what_follows_them(steps, window):
    """In rollouts of 6 steps, against a count over the whole 60 of them."""
    whole = seen_steps(steps, IDENTITY, 1.0)
    past, labelled = start_past((6, 16), window, 2, 1), []
    for t in range(0, 60, 6):
        oldest, past = with_labels(past, {k: v[t : t + 6] for k, v in whole.items()}, window)
        labelled.append(jax.device_get(oldest))
    seen = {k: np.concatenate([part[k] for part in labelled]) for k in whole}
    late = 6 * -(-(window - 1) // 6)
    assert seen["unusable"][:late].all() and not seen["unusable"][late:].any()
    failure, done = np.asarray(steps.failure), np.asarray(steps.done)
    for t in range(60 - late):
        for n in range(16):
            end = t + int(np.argmax(done[t:, n])) + 1 if done[t:, n].any() else 60
            expected = failure[t : min(end, t + window), n].any()
            assert seen["failure"][late + t, n] == expected
    np.testing.assert_array_equal(seen["obs"][late:], np.asarray(whole["obs"])[: 60 - late])
    assert 20 < seen["failure"].sum() < seen["failure"][late:].size / 2


@pytest.mark.slow  # half a minute, most of it compiling
def test_the_model_learns_from_what_it_observes(steps, demos):
    params = random_parameters(MODEL, np.zeros((1, 2)), np.zeros((1, 1)), seed=3)
    params = jax.tree.map(jnp.asarray, params)
    init, observe, learn, _ = make_adaptation(MODEL, ADAPT, WORLD, 0.1, (60, 16))
    adaptation = observe(init(params), steps, IDENTITY, jax.random.key(1))
    assert int(adaptation.recent.stored) == int(adaptation.failing.stored) == 8
    assert np.asarray(adaptation.failing.fields["failure"])[:8].any(axis=1).all()
    np.testing.assert_array_less(np.abs(adaptation.recent.fields["action"]), 1.0 + 1e-6)

    batch = sample_windows(demos, jax.random.key(9), WORLD, 256)
    loss = jax.jit(lambda p: learning.model_loss(MODEL, WORLD, p, params, batch)[0])
    before = float(loss(adaptation.model.learner.params))
    for i in range(20):
        adaptation = learn(adaptation, jax.random.key(i), demos, None)
    assert float(loss(adaptation.model.learner.params)) < 0.9 * before


def test_a_run_adapts_every_other_update_and_resumes_exactly(frozen, demos, tmp_path):  # noqa: F811
    phase = make_online(make_toy(16), NETS, ADAPTING, METHODS["farl"])
    budget = lambda updates: updates * phase.steps_per_update
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    go = lambda state, updates: list(
        copy(s)
        for s, _ in train(phase, state, frozen, gate(0.5), budget(updates), (ADAPT.every, demos))
    )
    states = go(phase.init(frozen, jax.random.key(7)), 4)
    worlds = [raw(current(s, frozen).world_model) for s in states]
    changed = [
        any(not np.array_equal(a[k], b[k]) for k in a)
        for a, b in zip([raw(frozen.world_model), *worlds], worlds, strict=False)
    ]
    assert changed == [False, True, False, True]

    checkpoint.save(tmp_path, 2, {"state": states[1]}, {"task": "toy"})
    abstract = {"state": jax.eval_shape(phase.init, frozen, jax.random.key(0))}
    _, items, _ = checkpoint.restore(tmp_path, abstract, expect={"task": "toy"})
    assert_identical(go(items["state"], 4)[-1], states[3])


def test_without_a_gate_or_with_every_zero_the_model_is_the_frozen_one(frozen):  # noqa: F811
    for config, method in ((ADAPTING, "uni_o4"), (GATED, "farl")):
        phase = make_online(make_toy(16), NETS, config, METHODS[method])
        state = jax.eval_shape(phase.init, frozen, jax.random.key(0))
        assert not phase.learns_risk and state.adaptation is None
        assert current(state, frozen).world_model is frozen.world_model


def test_the_default_windows_fit_a_default_rollout():
    world, adapt = WorldModelConfig(), AdaptationConfig()
    assert world.batch % 2 == 0 and adapt.windows_per_rollout <= adapt.failing_windows
