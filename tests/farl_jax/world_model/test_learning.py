"""World model: windows by hand, what they weigh, which loss moves what, a learnt cliff."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import WorldModelConfig
from farl_jax.data.dataset import from_rollout, split_by_episode
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.world_model import learning
from farl_jax.world_model.latent import LatentModel
from farl_jax.world_model.scores import auroc
from farl_jax.world_model.windows import (
    Windows,
    failing_run_index,
    importance,
    sample_windows,
    to_windows,
    window_starts,
)
from tests.parameters import random_parameters
from tests.toy import make_toy


def test_failing_run_index_by_hand():
    failure = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1], bool)
    episode = np.array([0, 0, 0, 0, 0, 1, 1, 1, 2])
    np.testing.assert_array_equal(failing_run_index(failure, episode), [1, 2, 0, 1, 2, 1, 2, 0, 1])


def rows(failure, episode):
    return {"failure": np.asarray(failure, bool), "episode": np.asarray(episode)}


def test_windows_stay_inside_their_episode():
    data = rows([0] * 9, [0, 0, 0, 0, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(window_starts(data, 3, cap=10), [0, 1, 6])
    np.testing.assert_array_equal(window_starts(data, 1, cap=10), np.arange(9))
    np.testing.assert_array_equal(window_starts(data, 5, cap=10), [])
    np.testing.assert_array_equal(window_starts(data, 10, cap=10), [])


def test_windows_do_not_start_deep_in_a_failing_run():
    data = rows([0, 1, 1, 1, 1, 0, 1, 0], [0] * 8)
    np.testing.assert_array_equal(window_starts(data, 2, cap=2), [0, 1, 2, 5, 6])


def numbers(data):
    """`data` with whatever else windows hold, all zeros."""
    names, size = ("obs", "next_obs", "action", "reward"), len(data["failure"])
    wide = {k: np.zeros((size, 1), np.float32) for k in names}
    return data | wide | {"terminated": np.zeros(size, bool)}


# three episodes of 3 and one of 3 that fails at its end: 4 windows, 1 of them failing
SMALL = rows([0] * 11 + [1], np.repeat(np.arange(4), 3))


def test_windows_and_those_with_a_failure_by_hand():
    windows = to_windows(numbers(SMALL), WorldModelConfig(train_horizon=3))
    assert int(windows.num_starts) == 4 and int(windows.num_failing) == 1
    np.testing.assert_array_equal(windows.starts[:4], [0, 3, 6, 9])
    assert int(windows.failing[0]) == 9


def test_importance_by_hand():
    """A true rate of 1/4, half of the batch failing ones alone: 5/8 of it, each weighs 2/5."""
    got = importance(jnp.array([True, False]), jnp.float32(0.25), 0.5)
    np.testing.assert_allclose(got, [0.4, 2.0], rtol=1e-6)
    np.testing.assert_allclose(importance(jnp.array([True, False]), jnp.float32(0.3), 0.0), 1.0)
    assert float(importance(jnp.array([False]), jnp.float32(0.0), 0.5)[0]) == 2.0
    assert float(importance(jnp.array([True]), jnp.float32(1.0), 0.5)[0]) == 1.0


def iid_failures():
    """One feature x ~ N(0, 1); a step fails with sigmoid(2 x - 5), 3 % of all: [4000 x 3] steps."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=12_000).astype(np.float32)
    failure = rng.random(12_000) < 1 / (1 + np.exp(5 - 2 * x))
    data = rows(failure, np.repeat(np.arange(4000), 3))
    number = np.zeros(12_000, np.float32)
    data |= {"obs": x[:, None], "next_obs": x[:, None], "action": x[:, None], "reward": number}
    return data | {"terminated": failure & False}


@pytest.fixture(scope="module")
def balanced():
    data, config = iid_failures(), WorldModelConfig(train_horizon=3)
    windows = to_windows(data, config)
    sample = jax.jit(lambda key: sample_windows(windows, key, config, 30_000))
    return data, jax.device_get(sample(jax.random.key(0)))


def test_half_of_a_batch_contains_a_failure(balanced):
    data, batch = balanced
    assert batch["obs"].shape == (3, 30_000, 1) and batch["failure"].shape == (3, 30_000)
    contains = batch["failure"].any(axis=0)
    assert contains[15_000:].all()
    natural = data["failure"].reshape(-1, 3).any(axis=1).mean()
    assert abs(contains[:15_000].mean() - natural) < 0.01


def test_sampled_windows_are_windows_of_the_data(balanced):
    data, batch = balanced
    known = {tuple(window) for window in data["obs"].reshape(-1, 3)}
    assert {tuple(window) for window in batch["obs"][:, :, 0].T} <= known


def test_weights_recover_the_base_rate_and_the_true_slope(balanced):
    """Logistic regression by Newton on the weighted batch, then judged on the data as it is."""
    data, batch = balanced
    x, label = batch["obs"].reshape(-1), batch["failure"].reshape(-1)
    features = np.stack([np.ones_like(x), x], 1).astype(float)

    def fitted(importance):
        weight = np.zeros(2)
        for _ in range(20):
            p = 1 / (1 + np.exp(-features @ weight))
            curvature = features.T @ (features * (importance * p * (1 - p))[:, None])
            weight -= np.linalg.solve(curvature, features.T @ (importance * (p - label)))
        return weight

    rate = data["failure"].mean()
    mean = lambda w: (1 / (1 + np.exp(-(w[0] + w[1] * data["obs"][:, 0])))).mean()
    assert mean(fitted(np.ones_like(x))) > 2.5 * rate  # what the weights have to undo
    weighted = fitted(np.tile(batch["weight"], 3))
    np.testing.assert_allclose(batch["weight"].mean(), 1.0, atol=0.02)
    assert abs(mean(weighted) / rate - 1) < 0.05
    np.testing.assert_allclose(weighted, [-5.0, 2.0], atol=0.4)


def test_data_without_a_whole_window_is_refused():
    data = iid_failures()
    with pytest.raises(ValueError, match="4 steps"):
        to_windows(data, WorldModelConfig(train_horizon=4))


def test_without_failures_batches_are_still_windows():
    data = iid_failures()
    data["failure"] = data["failure"] & False
    config = WorldModelConfig(train_horizon=3)
    windows = to_windows(data, config)
    batch = sample_windows(windows, jax.random.key(0), config, 8)
    assert not batch["failure"].any() and int(windows.num_failing) == 0
    np.testing.assert_array_equal(batch["weight"], 1.0)


# ---- which loss moves which component

TINY = WorldModelConfig(
    encoder="mlp", latent=8, simnorm_group=4, width=8, train_horizon=3, bins=11, batch=4
)
MODEL = LatentModel(TINY, 2, 1)


@pytest.fixture(scope="module")
def gradients():
    """Total, losses, the gradient of each, a hand-made consistency gradient and its target's."""
    rng = np.random.default_rng(1)
    obs = rng.normal(size=(4, 4, 2)).astype(np.float32)
    batch = {
        "obs": obs[:3],
        "next_obs": obs[1:],
        "action": rng.uniform(-1, 1, (3, 4, 1)).astype(np.float32),
        "reward": obs[:3, :, 0],
        "failure": obs[:3, :, 1] > 0,
        "terminated": np.zeros((3, 4), bool),
        "weight": np.array([0.5, 2.0, 1.0, 1.0], np.float32),
        "next_action": rng.uniform(-1, 1, (2, 3, 4, 1)).astype(np.float32),
    }

    def consistency(params, target_params):
        _, following = learning.roll_latents(MODEL, params, obs[0], batch["action"])
        target = MODEL.apply(target_params, batch["next_obs"], method="encode")
        weight = TINY.rho_consistency ** jnp.arange(3)[:, None]
        return (weight * ((following - target) ** 2).mean(-1)).mean()

    @jax.jit
    def gradient_of(params, weight):
        def chosen(p):
            total, losses = learning.model_loss(MODEL, TINY, p, params, batch)
            return sum(weight[name] * losses[name] for name in losses), (total, losses)

        return jax.grad(chosen, has_aux=True)(params)

    # Q heads would start at zero: here nothing does
    params = random_parameters(MODEL, obs[0], batch["action"][0])
    names = ("consistency", "reward", "value", "failure", "risk", "decoder", "prior")
    found = {
        name: gradient_of(params, {other: float(other == name) for other in names})
        for name in names
    }
    by_hand = jax.jit(jax.grad(consistency, argnums=(0, 1)))(params, params)
    total, losses = found["prior"][1]
    return jax.device_get((total, losses, {k: v[0] for k, v in found.items()}, *by_hand))


def touched(gradient):
    size = {
        name: max(np.abs(leaf).max() for leaf in jax.tree.leaves(part))
        for name, part in gradient["params"].items()
    }
    return {name.rstrip("_01") for name, value in size.items() if value > 0}


@pytest.mark.parametrize(
    ("loss", "components"),
    [
        ("prior", {"prior_head"}),
        ("consistency", {"encoder", "dynamics"}),
        ("reward", {"encoder", "dynamics", "reward_head"}),
        ("value", {"encoder", "dynamics", "q_heads"}),
        ("failure", {"encoder", "dynamics", "failure_head"}),
        ("risk", {"risk_heads"}),
        ("decoder", {"encoder", "dynamics", "decoder"}),
    ],
)
def test_each_loss_moves_its_own_components(gradients, loss, components):
    assert touched(gradients[2][loss]) == components


def test_both_q_heads_learn(gradients):
    heads = gradients[2]["value"]["params"]["q_heads"]
    for leaf in jax.tree.leaves(heads):
        assert (np.abs(leaf).reshape(2, -1).max(axis=1) > 0).all()


def test_the_consistency_target_is_not_pulled_towards_the_prediction(gradients):
    got, by_hand, pull = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
        for tree in (gradients[2]["consistency"], gradients[3], gradients[4])
    )
    np.testing.assert_allclose(got, by_hand, rtol=1e-4, atol=1e-7)
    assert np.abs(pull).max() > 1e-2 * np.abs(got).max()  # a missing stop would be noticed


def test_the_total_is_the_weighted_sum(gradients):
    total, losses = gradients[:2]
    weights = {k: getattr(TINY, f"{k}_weight") for k in losses if k != "prior"} | {"prior": 1.0}
    expected = sum(weights[name] * losses[name] for name in losses)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


# ---- the identity latent

PLAIN = dataclasses.replace(TINY, encoder="identity")
IDENTITY = LatentModel(PLAIN, 2, 1)


def test_the_identity_latent_is_the_observation():
    obs, action = np.random.default_rng(0).normal(size=(5, 2)), np.ones((5, 1))
    params = random_parameters(IDENTITY, obs, action)
    call = jax.jit(lambda name, *args: IDENTITY.apply(params, *args, method=name), static_argnums=0)
    np.testing.assert_array_equal(call("decode", call("encode", obs)), np.float32(obs))
    assert not {"encoder", "decoder"} & set(params["params"])
    assert {"encoder", "decoder"} <= set(random_parameters(MODEL, obs, action)["params"])
    change = np.asarray(call("next", obs, action)) - np.float32(obs)
    assert change.shape == (5, 2) and np.abs(change).min() > 1e-4


def drifting(key, obs):
    """The task policy walks right, the recovery policy left."""
    right = jnp.ones((*obs.shape[:-1], 1))
    return jnp.stack([right, -right])


def test_policies_act_where_batches_lead():
    batches = {"next_obs": jnp.zeros((5, 3, 4, 2))}
    doubled = lambda key, obs: 2.0 * drifting(key, obs)
    action = learning.with_actions(batches, doubled, jax.random.key(0))["next_action"]
    assert action.shape == (5, 2, 3, 4, 1)
    assert (action[:, 0] == 1.0).all() and (action[:, 1] == -1.0).all()  # as executed


def test_only_the_first_failure_counts():
    """c + (1 - c) (1 - terminated) g Q': a failing step, a success, a step before a risk of 0.5."""
    got = learning.risk_target(
        jnp.array([True, False, False]), jnp.array([False, True, False]), 0.5 * jnp.ones(3), 0.9
    )
    np.testing.assert_allclose(got, [1.0, 0.0, 0.45])


def test_a_fresh_model_fears_nothing():
    """Its risk starts far below any eps_safe, whatever its weights."""
    obs, action = jnp.linspace(-1, 1, 20).reshape(10, 2), jnp.linspace(-1, 1, 10)[:, None]
    params = MODEL.init(jax.random.key(0), obs, action)
    latent = MODEL.apply(params, obs, method="encode")
    risk = jax.nn.sigmoid(MODEL.apply(params, latent, action, method="risk"))
    assert 0.0 < float(risk.min()) < float(risk.max()) < 0.1


def test_target_heads_follow_at_their_own_rates():
    params = {"params": {k: {"w": jnp.ones(2)} for k in ("encoder", *learning.TARGETS)}}
    target = {"params": {k: {"w": jnp.zeros(2)} for k in learning.TARGETS}}
    config = WorldModelConfig(target_rate=0.1, risk_target_rate=0.5)
    got = learning._follow(target, params, config)["params"]
    assert got.keys() == {"q_heads", "risk_heads"}
    np.testing.assert_allclose(got["q_heads"]["w"], 0.1)
    np.testing.assert_allclose(got["risk_heads"]["w"], 0.5)


@pytest.mark.slow  # half a minute, most of it compiling
def test_the_learnt_tail_knows_when_the_first_failure_comes(drunkards):
    """Walking right from x fails at the k-th step, risk 0.9^(k - 1); walking left never does."""
    config = dataclasses.replace(
        PLAIN, steps=1500, batch=64, width=64, learning_rate=3e-3, gamma_risk=0.9, risk_weight=1.0
    )
    model = LatentModel(config, 2, 1)
    fit = learning.make_fit_offline(model, config, drifting)
    params = fit(jax.random.key(1), to_windows(drunkards, config), lambda *_: None)
    x = jnp.linspace(0.35, 0.85, 11)
    obs, right = jnp.stack([x, jnp.full(11, 0.2)], 1), jnp.ones((11, 1))
    ask = jax.jit(lambda a: jax.nn.sigmoid(model.apply(params, obs, a, method="risk").max(1)))
    steps = np.floor((0.9 - np.asarray(x)) / 0.1 + 1e-4)  # that stay at or below the cliff
    np.testing.assert_allclose(ask(right)[0], 0.9**steps, atol=0.12)
    assert float(ask(-right)[1].max()) < 0.1


@pytest.fixture(scope="module")
def drunkards():
    """60 steps of 64 walkers that do anything."""
    env = make_toy(64)

    def drunk(memory, state, key):
        return memory, plain_decision(jax.random.uniform(key, (64, 1), minval=-1.5, maxval=1.5))

    @jax.jit
    def roll(key):
        return unroll(env, drunk, None, env.reset(key), key, 60)[2]

    return from_rollout(roll(jax.random.key(0)))


@pytest.mark.slow
def test_the_identity_model_learns_the_toy(drunkards):
    """x moves by 0.1 a within its limits: the model has to learn that and the cliff."""
    config = dataclasses.replace(PLAIN, steps=300, batch=32, learning_rate=5e-3)
    windows, losses = to_windows(drunkards, config), []
    fit = learning.make_fit_offline(LatentModel(config, 2, 1), config, drifting)
    fit(jax.random.key(1), windows, lambda step, row: losses.append(row))
    still = ((drunkards["next_obs"] - drunkards["obs"]) ** 2).mean()  # of one step, not of three
    assert losses[-1]["consistency"] < 0.25 * still and losses[-1]["decoder"] < 0.25 * still
    assert losses[-1]["failure"] < losses[0]["failure"]


# ---- learning the cliff


CLIFF = WorldModelConfig(
    encoder="mlp",
    latent=16,
    simnorm_group=4,
    width=32,
    train_horizon=3,
    batch=64,
    learning_rate=2e-3,
    bins=21,
)


@pytest.fixture(scope="module")
def cliff(drunkards):
    """(probabilities [L, M], failures [L, M], losses before and after) on held-out windows."""
    training, held_out = split_by_episode(drunkards, 0.2, seed=0)
    windows = to_windows(training, CLIFF)
    model = LatentModel(CLIFF, 2, 1)
    losses = []
    fit = learning.make_fit_offline(model, CLIFF, drifting)
    params = fit(jax.random.key(1), windows, lambda step, row: losses.append(row))
    kernel = params["params"]["q_heads"]["Dense_0"]["kernel"]
    assert kernel.shape[0] == 2 and np.abs(kernel[0] - kernel[1]).max() > 1e-3  # own starts
    starts = window_starts(held_out, 3, CLIFF.failing_run_cap)
    index = np.arange(3)[:, None] + starts
    probability = jax.jit(learning.predict_failures, static_argnums=0)(
        model, params, held_out["obs"][starts], held_out["action"][index]
    )
    return np.asarray(probability), held_out["failure"][index], (losses[0], losses[-1]), windows


@pytest.mark.slow  # half a minute, most of it compiling
def test_failures_on_the_toy_are_foreseen(cliff):
    probability, failure, _, _ = cliff
    assert 30 < failure[1].sum() < 0.5 * failure[1].size
    assert auroc(probability[1], failure[1]) >= 0.95
    calm = ~failure[0]
    assert auroc(probability[1][calm], failure[1][calm]) >= 0.9  # not only "stays failed"


@pytest.mark.slow  # half a minute, most of it compiling
def test_probabilities_on_the_toy_have_the_natural_rate(cliff):
    probability, failure, _, _ = cliff
    np.testing.assert_allclose(probability.mean(), failure.mean(), atol=0.05)


@pytest.mark.slow  # half a minute, most of it compiling
def test_losses_fall_and_are_finite(cliff):
    before, after = cliff[2]
    assert all(np.isfinite(value) for value in after.values())
    assert after["failure"] < 0.9 * before["failure"]
    assert after["decoder"] < before["decoder"]


@pytest.mark.slow  # half a minute, most of it compiling
def test_windows_hold_every_row_once(cliff):
    windows: Windows = cliff[3]
    starts = np.asarray(windows.starts)[: int(windows.num_starts)]
    failing = np.asarray(windows.failing)[: int(windows.num_failing)]
    assert len(set(starts.tolist())) == len(starts)
    assert set(failing.tolist()) < set(starts.tolist())
    inside = np.asarray(windows.failure)[failing[:, None] + np.arange(3)]
    assert inside.any(axis=1).all()
