"""The online loop on the toy: honest counts, exact gate limits, exact resume, and it learns."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.agent import Agent, Networks
from farl_jax.config import (
    AdaptationConfig,
    FarlConfig,
    NetworkConfig,
    OnlineConfig,
    SafetyConfig,
    WorldModelConfig,
)
from farl_jax.methods import METHODS
from farl_jax.online.counters import Counters, summarize
from farl_jax.online.loop import make_online, train
from farl_jax.safety.behaviour import make_controller
from farl_jax.safety.gate import ALARMS, Gate, GateMemory
from farl_jax.storage import checkpoint
from farl_jax.types import Normalizer
from tests.parameters import random_parameters
from tests.toy import make_toy

ENVS, ROLLOUT = 16, 16
GATED = FarlConfig(
    network=NetworkConfig(width=16, depth=1),
    world_model=WorldModelConfig(width=8, bins=5, train_horizon=3, batch=16, chunk=2),
    safety=SafetyConfig(rule="paper", tail=False, release=1.0, horizon=2, control_share=0.0),
    adaptation=AdaptationConfig(every=0),
    online=OnlineConfig(
        num_envs=ENVS,
        rollout=ROLLOUT,
        epochs=4,
        minibatches=4,
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        discount=0.95,
        critic_warmup=ENVS * ROLLOUT,
        treatment="masked",
    ),
)
NETS = Networks.create(GATED, 2, 1)


@pytest.fixture(scope="module")
def frozen() -> Agent:
    obs, action = np.zeros((1, 2)), np.zeros((1, 1))
    result = Agent(
        policy=random_parameters(NETS.policy, obs, seed=0),
        value=random_parameters(NETS.value, obs, seed=1),
        recovery=random_parameters(NETS.policy, obs, seed=2),
        world_model=jax.tree.map(
            lambda leaf: 3 * leaf, random_parameters(NETS.latent, obs, action, seed=3)
        ),
        normalizer=Normalizer(*np.float32([[0.5, 0.5], [0.3, 0.3]]), np.float32(0.1)),
        max_risk=np.float32(0),
    )
    return jax.tree.map(jnp.asarray, result)


@pytest.fixture(scope="module")
def gated():
    return make_online(make_toy(ENVS), NETS, GATED, METHODS["farl"])


@pytest.fixture(scope="module")
def ungated():
    return make_online(make_toy(ENVS), NETS, GATED, METHODS["uni_o4"])


@pytest.fixture(scope="module")
def controlled():
    """The gate with a control group of a quarter of the episodes."""
    safety = dataclasses.replace(GATED.safety, control_share=0.25)
    config = dataclasses.replace(GATED, safety=safety)
    return make_online(make_toy(ENVS), NETS, config, METHODS["farl"])


@pytest.fixture(scope="module")
def risk(gated, frozen):
    """A threshold in the middle of the C_H that the random world model predicts."""
    _, steps = gated.collect(gated.init(frozen, jax.random.key(7)), frozen, gate(np.inf))
    return float(np.median(steps.decision.risk))


def gate(max_risk):
    return Gate.create(2, 0.95, max_risk)


def run(phase, frozen, max_risk, rounds, state=None):
    """State, metrics of the last update and all transitions [rounds * T, N]."""
    state = phase.init(frozen, jax.random.key(7)) if state is None else state
    chunks = []
    for _ in range(rounds):
        state, steps = phase.collect(state, frozen, gate(max_risk))
        chunks.append(jax.device_get(steps))
        state, metrics = phase.update(state, frozen, steps)
    return state, metrics, jax.tree.map(lambda *x: np.concatenate(x), *chunks)


def raw(tree):
    """Leaves by path as NumPy arrays, keys as their data."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return {
        jax.tree_util.keystr(path): np.asarray(jax.random.key_data(x) if is_key(x) else x)
        for path, x in flat
    }


def assert_identical(left, right):
    left, right = raw(left), raw(right)
    assert left.keys() == right.keys()
    unequal = {
        name: float(np.abs(left[name].astype(float) - right[name].astype(float)).max())
        for name in left
        if not np.array_equal(left[name], right[name])
    }
    assert not unequal


def assert_alike(left, right, tolerance=2e-4):
    """Whole numbers equal exactly, real ones up to rounding."""
    left, right = raw(left), raw(right)
    assert left.keys() == right.keys()
    for name, value in right.items():
        if np.issubdtype(value.dtype, np.floating):
            np.testing.assert_allclose(
                left[name], value, rtol=tolerance, atol=tolerance, err_msg=name
            )
        else:
            np.testing.assert_array_equal(left[name], value, err_msg=name)


def recount(steps):
    """The counters again, one environment and one step at a time."""
    count = dict.fromkeys([f.name for f in dataclasses.fields(Counters)], 0)
    blamed, alone = steps.decision.alarm, steps.decision.control
    for n in range(steps.reward.shape[1]):
        failed, total = False, 0.0
        for t in range(len(steps.reward)):
            total += float(steps.reward[t, n])
            count["failing_steps"] += int(steps.failure[t, n])
            count["recovered_steps"] += int(steps.decision.intervened[t, n])
            count["diverged"] += int(steps.diverged[t, n])
            if steps.failure[t, n] and not failed:
                failed = True
                count["failure_episodes"] += 1
                cause = "control_failure_episodes" if alone[t, n] else ALARMS[blamed[t, n]]
                count[cause] += 1
            if steps.terminated[t, n] or steps.truncated[t, n]:
                count["episodes"] += 1
                count["control_episodes"] += int(alone[t, n])
                count["successes"] += int(steps.success[t, n])
                count["return_sum"] += total
                failed, total = False, 0.0
    return count


def test_counters_equal_an_independent_recount_across_chunks(controlled, frozen, risk):
    """Chunks of 16 steps cut episodes of 20: a failure goes on over the border and counts once."""
    state, _, steps = run(controlled, frozen, risk, rounds=8)
    counters, expected = jax.device_get(state.counters), recount(steps)
    assert 0.1 < steps.decision.intervened.mean() < 0.9
    assert expected["failure_episodes"] > 20 and expected["episodes"] > 50
    over_border = steps.failure[ROLLOUT - 1 :: ROLLOUT][:-1] & steps.failure[ROLLOUT::ROLLOUT]
    assert (over_border & ~steps.terminated[ROLLOUT - 1 :: ROLLOUT][:-1]).any()
    assert int(state.env_steps) == steps.reward.size == 8 * ENVS * ROLLOUT
    assert 0 < expected["control_failure_episodes"] < expected["control_episodes"]
    assert expected["gate_silent"] + expected["recovery_late"] > 0
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(counters, name), value, rtol=1e-5, err_msg=name)


def test_an_episode_belongs_to_the_control_group_from_its_start_to_its_end(
    controlled, frozen, risk
):
    """It has no gate, whatever its risk, and about a quarter of the episodes do."""
    _, _, steps = run(controlled, frozen, risk, rounds=8)
    control, begins = steps.decision.control, steps.step_count == 1
    np.testing.assert_array_equal(control[1:][~begins[1:]], control[:-1][~begins[1:]])
    assert not steps.decision.intervened[control].any() and steps.decision.risky[control].any()
    assert steps.decision.intervened[~control].any()
    deviation = (0.25 * 0.75 / begins.sum()) ** 0.5
    assert abs(control[begins].mean() - 0.25) < 3 * deviation


def test_steps_keep_the_true_next_observation_where_an_episode_ends(ungated, frozen):
    """The observation's second entry is the share of the episode gone: 1 at the limit, 0 at
    reset.
    """
    _, _, steps = run(ungated, frozen, np.inf, rounds=3)
    done = (steps.terminated | steps.truncated)[:-1]
    np.testing.assert_array_equal(steps.next_obs[:-1][~done], steps.obs[1:][~done])
    np.testing.assert_array_equal(steps.obs[1:][done][:, 1], 0.0)
    assert steps.truncated.sum() > 10 and (steps.next_obs[steps.truncated][:, 1] == 1.0).all()


def test_a_summary_counts_all_and_rates_only_what_is_new(gated, frozen):
    state, metrics, _ = run(gated, frozen, np.inf, rounds=2)
    before = jax.device_get(state.counters)
    state, metrics, steps = run(gated, frozen, np.inf, rounds=3, state=state)
    row, first = summarize(state.counters, before, [metrics]), summarize(before, None, [])
    ends = steps.terminated | steps.truncated
    np.testing.assert_allclose(
        row["rollout_return"], steps.episode_return[ends].mean(), rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(row["rollout_success"], steps.success[ends].mean(), rtol=1e-5)
    assert row["episodes"] == before.episodes + ends.sum()
    assert row["kl"] == float(metrics["kl"]) and first["episodes"] == before.episodes


def test_an_infinite_threshold_reproduces_the_ungated_run_bit_for_bit(gated, ungated, frozen):
    with_gate, metrics, steps = run(gated, frozen, np.inf, rounds=4)
    without, ungated_metrics, ungated_steps = run(ungated, frozen, np.inf, rounds=4)
    assert steps.decision.risk.max() > 0 and not ungated_steps.decision.risk.any()
    decision = steps.decision.replace(risk=ungated_steps.decision.risk)
    assert_identical(steps.replace(decision=decision), ungated_steps)
    assert_identical(with_gate.learners, without.learners)
    assert_identical(with_gate.counters, without.counters)
    assert_identical(with_gate, without)
    for metric in (metrics, ungated_metrics):
        metric.pop("horizon_cost")
    assert_identical(metrics, ungated_metrics)


def test_eps_safe_follows_the_trigger_rate(frozen, risk):
    """Each rollout is judged by the eps_safe that the one before left."""
    safety = dataclasses.replace(GATED.safety, trigger_rate=0.3, min_risk=1e-3, max_risk=None)
    config = dataclasses.replace(GATED, safety=safety)
    phase = make_online(make_toy(ENVS), NETS, config, METHODS["farl"])
    state, drift, start = phase.init(frozen, jax.random.key(7)), 0.0, gate(risk)
    for _ in range(6):
        limit = float(risk * np.exp(drift))
        state, steps = phase.collect(state, frozen, start)
        cost, acted = steps.decision.risk, steps.decision.intervened
        assert (acted <= (cost > safety.release * limit * (1 - 1e-5))).all()
        drift += 0.2 * float(np.clip(acted.mean() / 0.3 - 1.0, -1.0, 1.0))
        drift = float(np.clip(drift, np.log(1e-3 / risk), -np.log(risk)))
        np.testing.assert_allclose(state.drift, drift, rtol=1e-4, atol=1e-5)
        state, metrics = phase.update(state, frozen, steps)
        assert metrics["drift"] == state.drift
    assert drift != 0.0


def test_a_negative_threshold_recovers_every_step(gated, frozen):
    state, metrics, steps = run(gated, frozen, -1.0, rounds=2)
    assert steps.decision.intervened.all()
    assert int(state.counters.recovered_steps) == steps.reward.size
    mean = jax.jit(lambda obs: NETS.policy.apply(frozen.recovery, frozen.normalizer(obs))[0])
    np.testing.assert_allclose(steps.decision.action, mean(steps.obs), rtol=1e-5, atol=1e-6)
    assert metrics["used"] == 0.0  # masked: nothing left to learn a policy from ...
    assert_identical(state.learners.actor.params, frozen.policy)  # ... and nothing learnt
    assert np.isfinite(metrics["value_loss"])


def test_recovery_acts_by_its_own_network():
    """One that sees motion, which the task policy does not: MetaWorld's 39 numbers, 4 actions."""
    network = dataclasses.replace(GATED.network, recovery_motion=30.0)
    config = dataclasses.replace(GATED, network=network)
    nets = Networks.create(config, 39, 4)
    obs, action = np.random.default_rng(0).normal(size=(5, 39)), np.zeros((5, 4))
    learnt = Agent(
        policy=random_parameters(nets.policy, obs, seed=0),
        value=None,
        recovery=random_parameters(nets.recovery, obs, seed=2),
        world_model=random_parameters(nets.latent, obs, action, seed=3),
        normalizer=Normalizer(np.zeros(39), np.ones(39)),
        max_risk=np.float32(0),
    )
    act = make_controller(nets, config, METHODS["farl"], explore=False)(learnt, gate(-1.0))
    state = SimpleNamespace(obs=jnp.asarray(obs), step_count=jnp.zeros(5, jnp.int32))
    _, decision = act(GateMemory.create(5), state, jax.random.key(0))
    wanted = nets.recovery.apply(learnt.recovery, jnp.asarray(obs))[0]
    np.testing.assert_allclose(decision.action, wanted, rtol=1e-5, atol=1e-6)


def test_the_first_ratio_of_a_loaded_policy_is_one(gated, frozen, risk):
    for max_risk in (np.inf, risk):
        _, metrics, _ = run(gated, frozen, max_risk, rounds=1)
        assert metrics["first_ratio_error"] <= 1e-6


def test_two_k_rounds_equal_k_rounds_saved_restored_and_k_more(controlled, frozen, tmp_path, risk):
    whole, _, steps = run(controlled, frozen, risk, rounds=4)
    half, _, _ = run(controlled, frozen, risk, rounds=2)
    assert half.memory.control.any()  # some of its episodes go on after the restart
    checkpoint.save(tmp_path, 2, {"online": half, "offline": frozen}, {"task": "toy"})
    abstract = {
        "online": jax.eval_shape(controlled.init, frozen, jax.random.key(0)),
        "offline": NETS.abstract_agent(),
    }
    step, items, _ = checkpoint.restore(tmp_path, abstract, expect={"task": "toy"})
    assert step == 2
    assert_identical(items["online"], half)
    assert_identical(items["offline"], frozen)
    resumed, _, later = run(controlled, items["offline"], risk, rounds=2, state=items["online"])
    assert_identical(resumed, whole)
    assert_identical(later, jax.tree.map(lambda x: x[2 * ROLLOUT :], steps))


def test_train_yields_after_every_update_and_stops_at_the_budget(gated, frozen, risk):
    size = ENVS * ROLLOUT
    assert gated.steps_per_update == size
    state = gated.init(frozen, jax.random.key(7))
    seen = []
    for latest, _ in train(gated, state, frozen, gate(risk), 2 * size + 1):
        seen.append(int(latest.env_steps))
    assert seen == [size, 2 * size, 3 * size]  # the last round is whole
    assert_identical(latest, run(gated, frozen, risk, rounds=3)[0])
    assert not list(train(gated, latest, frozen, gate(risk), 3 * size))  # resumed at its end


def test_the_frozen_parts_survive_a_run(gated, frozen, risk):
    """States are donated; what they start from must stay usable and unchanged."""
    before = raw(frozen)
    run(gated, frozen, risk, rounds=2)
    after = raw(frozen)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_actor_rests_while_the_critic_warms_up(ungated, frozen):
    first, _, _ = run(ungated, frozen, np.inf, rounds=1)
    assert_identical(first.learners.actor.params, frozen.policy)
    moved = raw(first.learners.critic.params)
    assert not any(np.array_equal(moved[k], v) for k, v in raw(frozen.value).items())
    second, _, _ = run(ungated, frozen, np.inf, rounds=1, state=first)
    still = raw(second.learners.actor.params)
    assert not any(np.array_equal(still[k], v) for k, v in raw(frozen.policy).items())


def test_ppo_learns_the_toy(ungated, frozen):
    start = ungated.init(frozen, jax.random.key(3))
    before, rows = None, []
    for state, metrics in train(ungated, start, frozen, gate(np.inf), 120 * ENVS * ROLLOUT):
        if int(state.env_steps) % (20 * ENVS * ROLLOUT) == 0:
            rows.append(summarize(state.counters, before, [metrics]))
            before = jax.device_get(state.counters)
    returns = [row["rollout_return"] for row in rows]
    assert returns[-1] > returns[0] + 4.0 and returns[-1] > 9.0, returns
