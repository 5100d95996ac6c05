"""The constrained methods: multiplier, penalty, what they have in common with PPO, and the toy."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import ConstraintConfig, FarlConfig, OnlineConfig
from farl_jax.methods import METHODS
from farl_jax.online.counters import summarize
from farl_jax.online.loop import make_online, train
from farl_jax.storage import checkpoint
from farl_jax.updates import constrained, ppo
from farl_jax.updates.costs import CostBatch
from tests.farl_jax.online import test_loop as toy
from tests.farl_jax.updates import test_ppo as case
from tests.toy import make_toy

LIMITS = ConstraintConfig(limit=0.1, multiplier_rate=0.5, multiplier_cap=3.0)


# ---- the multiplier


def test_the_multiplier_follows_the_excess_and_rests_at_the_limit():
    step = lambda multiplier, excess: float(constrained.ascend(multiplier, excess, LIMITS))
    assert step(1.0, 0.0) == 1.0
    assert step(1.0, 0.2) == pytest.approx(1.1) and step(1.0, -0.2) == pytest.approx(0.9)
    assert step(0.0, -0.5) == 0.0 and step(0.1, -0.9) == 0.0  # projected
    assert step(2.9, 0.9) == 3.0


def test_the_multiplier_finds_the_price_at_which_the_limit_holds():
    """A policy that answers the price with a rate of exp(-lambda): J_C = d at lambda = -log d."""
    multiplier = jnp.asarray(0.0)
    for _ in range(400):
        multiplier = constrained.ascend(multiplier, jnp.exp(-multiplier) - LIMITS.limit, LIMITS)
    np.testing.assert_allclose(multiplier, -np.log(LIMITS.limit), rtol=1e-3)


# ---- the losses, by hand

RATIO, WEIGHT = np.array([1.5, 0.9, 1.5, 1.0]), [1.0, 1.0, 1.0, 0.0]
ONLINE, FIXED = OnlineConfig(clip=0.2), (case.Fixed, case.PARAMS)


def data(cost_advantage, live=(1.0, 1.0, 1.0, 1.0)):
    batch = case.batch_of(np.log(RATIO), [1.0, 4.0, 7.0, 1e6], WEIGHT, case.PARAMS)
    return batch, CostBatch(jnp.asarray(cost_advantage), jnp.zeros(4), jnp.asarray(live))


P3O = jax.jit(lambda data, excess: constrained.p3o_loss(*FIXED, data, excess, ONLINE, 20.0))


def p3o(excess, cost=(0.3, 0.0, 0.0, 9.0), live=(1.0, 1.0, 1.0, 1.0)):
    loss, metrics = P3O(data(cost, live), excess)
    return float(loss), float(metrics["multiplier"])


def test_p3os_penalty_switches_on_where_the_predicted_cost_exceeds_the_limit():
    plain = float(ppo.policy_loss(*FIXED, data([0.0] * 4)[0], ONLINE)[0])
    # centred: 0.2, -0.1, -0.1; pessimistic: 1.5 * 0.2, -0.9 * 0.1, -1.2 * 0.1 (the fall is clipped)
    rise = (0.3 - 0.09 - 0.12) / 3
    for excess in (-0.02, 0.0, 0.5):
        loss, on = p3o(excess)
        assert on == 20.0
        np.testing.assert_allclose(loss, plain + 20.0 * (rise + excess), rtol=1e-4)
    loss, on = p3o(-0.04)
    assert on == 0.0
    np.testing.assert_allclose(loss, plain, rtol=1e-6)


def test_steps_after_the_first_failure_have_no_part_in_the_penalty():
    np.testing.assert_allclose(
        p3o(0.1, cost=(0.3, 0.0, 7.0, 9.0), live=(1.0, 1.0, 0.0, 1.0))[0]
        - p3o(0.1, cost=(0.3, 0.0, -7.0, 9.0), live=(1.0, 1.0, 0.0, 1.0))[0],
        0.0,
        atol=1e-5,
    )


def test_the_lagrangian_weighs_standardised_advantages():
    """A_r = -a, 0, a with a = sqrt(3/2); A_C = 2 a', -a', -a' with a' = sqrt(1/2)."""
    multiplier = 3.0
    a, b = np.sqrt(1.5), np.sqrt(0.5)
    gain = (np.array([-a, 0.0, a]) - multiplier * np.array([2 * b, -b, -b])) / (1 + multiplier)
    clipped = np.clip(RATIO[:3], 0.8, 1.2)
    expected = -np.minimum(RATIO[:3] * gain, clipped * gain).mean()
    loss, metrics = constrained.lagrangian_loss(
        *FIXED, data([0.3, 0.0, 0.0, 9.0]), multiplier, ONLINE
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    assert metrics["multiplier"] == multiplier


# ---- the update

KEY = jax.random.key(2)


@pytest.fixture(scope="module")
def start():
    obs = np.zeros((1, case.D))
    parameters = lambda net, seed: case.random_parameters(net, obs, seed=seed)
    config = FarlConfig(online=case.CONFIG, constraint=LIMITS)
    init, _ = constrained.make_update(case.POLICY, case.VALUE, config, "p3o")
    return init(parameters(case.POLICY, 0), parameters(case.VALUE, 0), parameters(case.VALUE, 5))


def make(constraint, **limits):
    """update(learners, steps, warmup) of a method."""
    config = FarlConfig(online=case.CONFIG, constraint=dataclasses.replace(LIMITS, **limits))
    update = jax.jit(constrained.make_update(case.POLICY, case.VALUE, config, constraint)[1])
    return lambda start, steps, warmup=False: update(
        start, case.NORMALIZER, steps, KEY, jnp.asarray(warmup)
    )


@pytest.fixture(scope="module")
def lagrange():
    return make("lagrangian")


@pytest.fixture(scope="module")
def trust_region():
    return make("cpo", max_kl=0.01, cg_damping=0.01, curvature_stride=1)


def rollout(start, failing):
    """Episodes that end at step 5; of the `failing` environments all fail at step 2."""
    steps = case.rollout(start.actor.params, case.NOBODY)
    fails = np.zeros((case.T, case.N), bool)
    fails[2, failing] = True
    last = np.arange(case.T)[:, None] == case.T - 1
    return steps.replace(
        failure=jnp.asarray(fails),
        first_failure=jnp.asarray(fails),
        failing_steps=jnp.asarray(np.cumsum(fails, 0)),
        terminated=jnp.zeros_like(steps.terminated),
        truncated=jnp.asarray(np.broadcast_to(last, fails.shape)),
    )


@pytest.fixture(scope="module")
def failing(start):
    return rollout(start, slice(None, None, 2))


def assert_is_ppo(update, start, steps):
    expected, metrics = case.UPDATE(
        case.INIT(start.actor.params, start.critic.params), case.NORMALIZER, steps, KEY
    )
    got, more = update(start, steps)
    for part in ("actor", "critic"):
        pairs = (jax.tree.leaves(getattr(x, part)) for x in (got, expected))
        for ours, theirs in zip(*pairs, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert not case.same(got.actor, start.actor)
    np.testing.assert_allclose(more["kl"], metrics["kl"], rtol=1e-4)
    assert more["multiplier"] == 0.0
    assert not case.same(got.costs.critic.params, start.costs.critic.params)


def test_with_a_multiplier_of_zero_it_is_ppo(lagrange, start, failing):
    assert_is_ppo(lagrange, start, rollout(start, []))  # no failure: lambda stays 0
    got, metrics = lagrange(start, failing)
    np.testing.assert_allclose(metrics["cost_rate"], 0.5)
    np.testing.assert_allclose(got.costs.multiplier, 0.5 * 0.4, rtol=1e-5)
    np.testing.assert_allclose(metrics["multiplier"], got.costs.multiplier, rtol=1e-5)


def test_with_a_penalty_of_zero_it_is_ppo(start, failing):
    assert_is_ppo(make("p3o", penalty=0.0), start, failing)


@pytest.mark.slow
def test_cpos_step_stays_in_its_trust_region_and_turns_from_what_failed(
    trust_region, start, failing
):
    got, metrics = trust_region(start, failing)
    assert metrics["first_ratio_error"] <= 1e-6
    assert 0.001 < metrics["kl"] <= 0.01 and metrics["step_share"] > 0.0
    assert case.same(got.actor.opt_state, start.actor.opt_state)
    mean, log_std = case.POLICY.apply(got.actor.params, case.NORMALIZER(failing.obs))
    log_prob = case.distributions.log_prob(failing.decision.action, mean, log_std)
    blamed = (log_prob - failing.decision.log_prob)[2, ::2]
    assert blamed.mean() < 0.0


def test_at_rest_the_values_learn_and_the_rate_is_counted_but_nothing_else_moves(
    lagrange, trust_region, start, failing
):
    for update in (lagrange, trust_region):
        got, metrics = update(start, failing, warmup=True)
        assert metrics["stopped"] == 1.0
        assert case.same(got.actor, start.actor) and got.costs.multiplier == 0.0
        np.testing.assert_allclose(metrics["cost_rate"], 0.5)
        assert not case.same(got.costs.critic.params, start.costs.critic.params)
        assert not case.same(got.critic.params, start.critic.params)


# ---- the toy that pays for failing

TEMPTING = dataclasses.replace(toy.GATED, constraint=ConstraintConfig(limit=0.1, discount=0.95))
frozen = toy.frozen
UPDATES = 40


def make_phase(method):
    return make_online(make_toy(toy.ENVS, 2.0), toy.NETS, TEMPTING, METHODS[method])


def last_rates(phase, frozen):
    """(failing share of the episodes, J_C) in the last quarter of a short run."""
    small = jax.tree.map(lambda x: 0.1 * x, frozen.value)
    start = phase.init(frozen, jax.random.key(3), small)
    before, updates = None, []
    for state, metrics in train(phase, start, frozen, toy.gate(np.inf), UPDATES * 256):
        updates.append(metrics)
        if len(updates) == UPDATES * 3 // 4:
            before, updates = jax.device_get(state.counters), []
    row = summarize(state.counters, before, updates)
    return row["rollout_failure_rate"], row.get("cost_rate")


@pytest.fixture(scope="module")
def lagrangian():
    return make_phase("ppo_lagrangian")


def test_plain_ppo_gives_in_to_temptation_and_the_lagrangian_keeps_the_limit(lagrangian, frozen):
    assert last_rates(make_phase("uni_o4"), frozen)[0] > 0.9
    failing, rate = last_rates(lagrangian, frozen)
    assert failing <= TEMPTING.constraint.limit and rate <= TEMPTING.constraint.limit


@pytest.mark.slow  # compiling, for the most part
@pytest.mark.parametrize("method", ["p3o", "cpo"])
def test_p3o_and_cpo_keep_the_limit(method, frozen):
    failing, rate = last_rates(make_phase(method), frozen)
    assert failing <= TEMPTING.constraint.limit and rate <= TEMPTING.constraint.limit


def test_a_restored_run_goes_on_as_if_never_stopped(lagrangian, frozen, tmp_path):
    start = lambda: lagrangian.init(frozen, jax.random.key(7), frozen.value)
    state = start()
    for _ in range(3):
        state, steps = lagrangian.collect(state, frozen, toy.gate(np.inf))
        state, _ = lagrangian.update(state, frozen, steps)
    assert state.learners.costs.multiplier > 0.0 and state.learners.costs.rate.ended > 0
    checkpoint.save(tmp_path, 3, {"state": state}, {"task": "toy"})
    abstract = {"state": jax.eval_shape(start)}
    _, items, _ = checkpoint.restore(tmp_path, abstract, expect={"task": "toy"})
    toy.assert_identical(items["state"], state)
    whole, _, _ = toy.run(lagrangian, frozen, np.inf, 1, state)
    resumed, _, _ = toy.run(lagrangian, frozen, np.inf, 1, items["state"])
    toy.assert_identical(resumed, whole)
