"""The world model's learning online: which windows are kept, what a batch holds, that it learns."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import AdaptationConfig, WorldModelConfig
from farl_jax.data.dataset import from_rollout
from farl_jax.data.ring import create_ring, draw, store
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.measure.diagnosis import worst_factor
from farl_jax.methods import METHODS
from farl_jax.online.loop import current, make_online, train
from farl_jax.storage import checkpoint
from farl_jax.types import Normalizer
from farl_jax.world_model import learning
from farl_jax.world_model.adaptation import (
    failing_rate,
    make_adaptation,
    mixed_batch,
    seen_steps,
    usable_windows,
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
IDENTITY = Normalizer(jnp.zeros(2), jnp.ones(2), 0.1)


def resting(task, recovery):
    """Both policies stand still."""
    return lambda key, obs: jnp.zeros((2, *obs.shape[:-1], 1))


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
    return to_windows(from_rollout(steps), WORLD)


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
    ring = store(ring, rows, eligible, jax.random.key(0), 8, 32)
    assert int(ring.stored) == 4
    kept = np.asarray(ring.fields["reward"])
    assert sorted(kept[:4, 0]) == [201, 202, 203, 204] and not kept[4:].any()
    np.testing.assert_array_equal(kept[:4] - kept[:4, :1], [[0, 1, 2]] * 4)
    everything = jnp.ones((6, 4), bool)
    for i in range(4):
        ring = store(ring, rows, everything, jax.random.key(i), 8, 32)
    assert int(ring.stored) == 36
    np.testing.assert_array_equal(np.diff(ring.fields["reward"], axis=1), np.ones((10, 2)))
    assert len(np.unique(np.asarray(ring.fields["reward"])[:, 0])) >= 8  # no window twice a round
    drawn = draw(ring, jax.random.key(5), 50)
    assert drawn["obs"].shape == (3, 50, 2) and drawn["reward"].shape == (3, 50)


def test_nothing_is_stored_where_nothing_is_eligible():
    ring = create_ring(10, 3, 2, 1)
    after = store(ring, numbered(8, 4), jnp.zeros((6, 4), bool), jax.random.key(0), 8, 32)
    assert_identical(after, ring)


def test_a_window_stands_for_as_many_as_there_were_and_fades():
    """24 eligible windows, 8 kept: 3 each; two rollouts of memory 4 later 3 x (3/4)^2."""
    ring, rows = create_ring(64, 3, 2, 1), numbered(8, 4)
    some = jnp.zeros((6, 4), bool).at[0, 0].set(True)
    ring = store(ring, rows, jnp.ones((6, 4), bool), jax.random.key(0), 8, 4)
    np.testing.assert_allclose(ring.weight[:8], 3.0)
    assert float(ring.total) == 24.0
    for i in range(2):
        ring = store(ring, rows, some, jax.random.key(i), 8, 4)
    np.testing.assert_allclose(ring.weight[:10], [3 * 0.75**2] * 8 + [0.75, 1.0])
    np.testing.assert_allclose(ring.total, (24 * 0.75 + 1) * 0.75 + 1)
    assert not np.asarray(ring.weight)[10:].any()
    drawn = np.asarray(draw(ring, jax.random.key(5), 20_000)["reward"])[0]
    only = (drawn == 0).mean()  # stored twice on its own, and perhaps among the eight
    among = float((np.asarray(ring.fields["reward"])[:8, 0] == 0).sum())
    expected = (1.75 + among * 3 * 0.75**2) / float(ring.weight.sum())
    np.testing.assert_allclose(only, expected, atol=0.01)


def test_windows_lie_in_one_episode_and_do_not_begin_deep_in_a_failure(steps):
    usable, failing = map(np.asarray, usable_windows(seen_steps(steps, IDENTITY), 3, cap=2))
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
    usable, _ = usable_windows(seen_steps(broken, IDENTITY), 3, cap=100)
    assert not usable[28:31].any() and usable[27].any() and usable[31].any()


@pytest.mark.slow  # half a minute, most of it compiling
def test_the_model_learns_from_what_it_observes(steps, demos):
    params = random_parameters(MODEL, np.zeros((1, 2)), np.zeros((1, 1)), seed=3)
    params = jax.tree.map(jnp.asarray, params)
    init, observe, learn, _ = make_adaptation(MODEL, ADAPT, WORLD, resting)
    adaptation = observe(init(params), IDENTITY, steps, jax.random.key(1))
    assert int(adaptation.recent.stored) == int(adaptation.failing.stored) == 8
    assert np.asarray(adaptation.failing.fields["failure"])[:8].any(axis=1).all()
    np.testing.assert_array_less(np.abs(adaptation.recent.fields["action"]), 1.0 + 1e-6)

    batch = sample_windows(demos, jax.random.key(9), WORLD, 256)
    batch |= {"next_action": jnp.zeros((2, 3, 256, 1))}
    loss = jax.jit(lambda p: learning.model_loss(MODEL, WORLD, p, params, batch)[0])
    before = float(loss(adaptation.model.learner.params))
    for i in range(20):
        adaptation = learn(adaptation, jax.random.key(i), demos, (None, None))
    assert float(loss(adaptation.model.learner.params)) < 0.9 * before


# ---- a stream whose failure rate changes tenfold

DRIFT = WorldModelConfig(
    encoder="identity", width=32, bins=5, train_horizon=3, batch=96, learning_rate=3e-3
)
DRIFTING = LatentModel(DRIFT, 1, 1)
BOUNDS = 4.0


def stream(rng, mean, length, envs):
    """x ~ N(mean, 1) and whether it fails, with chance sigmoid(2 x - 5): [T, N] each."""
    x = np.clip(rng.normal(mean, 1.0, (length, envs)), -BOUNDS, BOUNDS).astype(np.float32)
    return x, rng.random((length, envs)) < 1 / (1 + np.exp(5 - 2 * x))


def as_steps(x, failure):
    """The stream as steps of a rollout in which the action says where x goes next."""
    following = jnp.roll(x, -1, axis=0)[..., None]
    none = jnp.zeros(x.shape, bool)
    return SimpleNamespace(
        obs=x[..., None],
        next_obs=following,
        decision=SimpleNamespace(action=following / BOUNDS),
        reward=jnp.zeros(x.shape),
        failure=failure,
        terminated=none,
        done=none,
        failing_steps=none.astype(jnp.int32),
        diverged=none,
    )


def as_demos(x, failure):
    """The same as a dataset, each environment an episode."""
    steps = vars(as_steps(x, failure))
    names = ("obs", "next_obs", "reward", "failure", "terminated")
    flat = lambda a: np.swapaxes(np.asarray(a), 0, 1).reshape(-1, *a.shape[2:])
    data = {name: flat(steps[name]) for name in names}
    episode = np.repeat(np.arange(x.shape[1]), len(x))
    return data | {"action": flat(steps["decision"].action), "episode": episode}


@pytest.fixture(scope="module")
def drift():
    """(failure rate, its deciles) offline, then through two phases of a run."""
    rng = np.random.default_rng(0)
    adapt = AdaptationConfig(windows=1024, failing_windows=512, memory=8, learning_rate=1e-3)
    _, observe, learn, _ = learning_of = make_adaptation(DRIFTING, adapt, DRIFT, resting)
    plain = Normalizer(jnp.zeros(1), jnp.ones(1))
    see = jax.jit(lambda a, x, f, key: observe(a, plain, as_steps(x, f), key))
    demos = to_windows(as_demos(*stream(rng, 0.5, 3, 30_000)), DRIFT)
    offline = dataclasses.replace(DRIFT, steps=2000)
    fit = learning.make_fit_offline(DRIFTING, offline, resting(None, None))
    params = fit(jax.random.key(0), demos, lambda *_: None)

    @jax.jit
    def predict(params, x):
        logit = DRIFTING.apply(params, x[:, None], jnp.zeros((len(x), 1)), method="failure")
        return jax.nn.sigmoid(logit)

    def judge(params, mean):
        x, failure = (a[0] for a in stream(rng, mean, 1, 100_000))
        p = np.asarray(predict(params, x))
        parts = np.array_split(np.argsort(p, kind="stable"), 10)
        rows = [(p[i].mean(), failure[i].mean(), failure[i].sum()) for i in parts]
        bins = dict(zip(("predicted", "realised", "events"), zip(*rows, strict=True), strict=True))
        return failure.mean(), bins

    found, adaptation = [judge(params, 0.5)], learning_of.init(params)
    for phase, mean in enumerate((0.2, -1.2)):
        for i in range(40):
            adaptation = see(adaptation, *stream(rng, mean, 32, 64), jax.random.key(i))
            adaptation = learn(adaptation, jax.random.key(100 * phase + i), demos, (None, None))
            if i in (1, 7, 39):
                found.append(judge(adaptation.learnt["world_model"], mean))
    rate = stream(rng, -1.2, 3, 100_000)[1].any(axis=0).mean()
    return found, float(failing_rate(adaptation)), rate


@pytest.mark.slow  # half a minute, most of it compiling
def test_predictions_stay_calibrated_while_the_failure_rate_falls_tenfold(drift):
    """Within 1.5 in each decile with 50 events of 100,000 steps: offline, and in both phases."""
    found = drift[0]
    rates = np.array([rate for rate, _ in found])
    np.testing.assert_allclose(rates, [0.068] + [0.044] * 3 + [0.0041] * 3, rtol=0.15)
    judged = [sum(events >= 50 for events in bins["events"]) for _, bins in found]
    assert min(judged[:4]) >= 6 and min(judged[4:]) >= 1, judged  # the claim is about something
    assert max(worst_factor(bins) for _, bins in found) < 1.5, found


@pytest.mark.slow  # shares the above's run
def test_the_running_rate_of_failing_windows_is_the_runs_own(drift):
    np.testing.assert_allclose(drift[1], drift[2], rtol=0.25)


def test_both_halves_of_a_batch_weigh_what_they_are(steps, demos):
    """The mean of `failure` by weight is the rate of each half's own windows, not one half."""
    params = random_parameters(MODEL, np.zeros((1, 2)), np.zeros((1, 1)), seed=3)
    init, observe, _, _ = make_adaptation(MODEL, ADAPT, WORLD, resting)
    adaptation = observe(init(params), IDENTITY, steps, jax.random.key(1))
    usable, bad = usable_windows(seen_steps(steps, IDENTITY), 3, WORLD.failing_run_cap)
    np.testing.assert_allclose(failing_rate(adaptation), bad.sum() / usable.sum(), rtol=1e-6)
    rate = float(demos.num_failing / demos.num_starts)
    wide = dataclasses.replace(WORLD, batch=8000)
    batch = mixed_batch(adaptation, jax.random.key(2), demos, wide)
    failing, weight = np.asarray(batch["failure"].any(0)), np.asarray(batch["weight"])
    for half in (slice(4000), slice(4000, None)):
        assert failing[half].mean() > 0.5 > 1.5 * rate
        assert weight[half].min() > 0.0
    np.testing.assert_allclose((weight * failing)[4000:].mean(), rate, rtol=0.05)
    np.testing.assert_allclose(weight[4000:].mean(), 1.0, rtol=0.05)


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
