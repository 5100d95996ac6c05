"""The horizon study: every gate's C_H and deeds are its own, and one program holds them all."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cli import main
from experiments.figures.runs import horizon_figure
from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig, HorizonConfig, NetworkConfig, SafetyConfig, WorldModelConfig
from farl_jax.measure import diagnosis, horizon, intervals
from farl_jax.methods import METHODS
from farl_jax.online.counters import Counters
from farl_jax.safety import behaviour, imagination
from farl_jax.safety.gate import Gate, GateMemory
from farl_jax.schema import SchemaError
from farl_jax.types import Normalizer
from tests.parameters import random_parameters
from tests.toy import make_toy

HORIZONS, TOP, ENVS, CHUNK = (1, 2, 3, 5, 8, 10, 15, 20), 20, 8, 25
CONFIG = FarlConfig(
    network=NetworkConfig(width=8, depth=1),
    world_model=WorldModelConfig(width=8, bins=5, train_horizon=TOP + 1),
    safety=SafetyConfig(rule="paper", tail=False, release=1.0, horizon=TOP, hold=3),
)
TOY = make_toy(ENVS)
NETS = Networks.create(CONFIG, TOY.observation_size, TOY.action_size)


def gates(horizons, gamma, max_risk) -> Gate:
    size = len(horizons)
    fill = lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.float32), (size,))
    return Gate(jnp.asarray(horizons), fill(gamma), fill(max_risk))


@pytest.fixture(scope="module")
def learnt() -> Agent:
    obs, action = np.zeros((1, 2)), np.zeros((1, 1))
    world = random_parameters(NETS.latent, obs, action, seed=3)
    result = Agent(
        policy=random_parameters(NETS.policy, obs, seed=0),
        value={},
        recovery=random_parameters(NETS.policy, obs, seed=2),
        world_model=jax.tree.map(lambda leaf: 3 * leaf, world),
        normalizer=Normalizer(np.float32([0.5, 0.5]), np.float32([0.3, 0.3])),
        max_risk=np.float32(0),
    )
    return jax.tree.map(jnp.asarray, result)


@pytest.fixture(scope="module")
def costs():
    return horizon.make_costs(NETS, CONFIG.safety, TOP)


@pytest.fixture(scope="module")
def trial():
    controller_of = behaviour.make_controller(NETS, CONFIG, METHODS["farl"], explore=True)
    return horizon.make_trial(TOY, controller_of, lambda: GateMemory.create(TOY.num_envs), CHUNK)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.random((6, 2), np.float32)), jnp.asarray(rng.random((6, 1), np.float32))


def first_failure(p, gamma, horizon):
    """sum_{i<=H} gamma^i p_i prod_{j<i} (1 - p_j), term by term."""
    alive, total = np.ones_like(p[0]), np.zeros_like(p[0])
    for i in range(horizon + 1):
        total, alive = total + gamma**i * alive * p[i], alive * (1 - p[i])
    return total


def test_each_gates_cost_is_the_sum_over_its_own_horizon(costs, learnt, inputs):
    """Against sums by hand of p_i, and against the model rolled three steps and no further."""

    def imagined(steps):
        roll = lambda obs, action: imagination.imagined_failures(
            NETS, learnt, learnt.normalizer(obs), action, steps, CONFIG.safety.hold
        )
        return np.asarray(jax.jit(roll)(*inputs))

    p, short = imagined(TOP), imagined(3)
    for gamma in (0.8, 0.95):
        together = np.asarray(costs(learnt, gates(HORIZONS, gamma, 0.0), *inputs))
        for got, steps in zip(together, HORIZONS, strict=True):
            by_hand = first_failure(p, gamma, steps)
            np.testing.assert_allclose(got, by_hand, rtol=2e-5)
        direct = first_failure(short, gamma, 3)
        np.testing.assert_allclose(together[HORIZONS.index(3)], direct, rtol=2e-5)


def test_a_sweep_of_eight_horizons_is_one_program_at_the_price_of_one_gate(costs, learnt, inputs):
    for gamma, horizons in ((0.8, HORIZONS), (0.95, HORIZONS), (0.9, (20, 4, 4, 6, 7, 9, 11, 13))):
        costs(learnt, gates(horizons, gamma, 0.0), *inputs)
    assert costs._cache_size() == 1
    work = lambda some: costs.lower(learnt, some, *inputs).compile().cost_analysis()["flops"]
    assert work(gates(HORIZONS, 0.9, 0.0)) < 1.2 * work(gates([TOP], 0.9, 0.0))


def test_matched_gates_fire_equally_often_and_ties_keep_below():
    rng = np.random.default_rng(1)
    cost = np.exp(rng.normal(size=(3, 50, 20)) * np.array([1, 2, 3])[:, None, None])
    calm = rng.random((50, 20)) < 0.8
    rates = (0.02, 0.05, 0.1)
    for rate, row in zip(
        rates, horizon.matched_thresholds(cost.astype(np.float32), calm, rates), strict=True
    ):
        fired = (cost.astype(np.float32) > row[:, None, None])[:, calm].mean(1)
        np.testing.assert_allclose(fired, rate, atol=1.01 / calm.sum())
        assert (fired <= rate).all()
    saturated = np.where(rng.random((1, 50, 20)) < 0.5, 1.0, 0.0)
    (eps,) = horizon.matched_thresholds(saturated, calm, (0.1,))
    assert not (saturated > eps).any()


@pytest.fixture(scope="module")
def spread(costs, learnt, inputs) -> Gate:
    """Always, often, sometimes, never."""
    cost = np.asarray(costs(learnt, gates(HORIZONS, 0.9, 0.0), *inputs))
    often, sometimes = np.median(cost[HORIZONS.index(8)]), np.median(cost[HORIZONS.index(20)])
    return gates((2, 8, 20, 5), (0.8, 0.9, 0.9, 1.0), (-1.0, often, sometimes, np.inf))


def played(trial, learnt, some: Gate, chunks=3):
    start, advance = trial
    state = start(some, jax.random.key(5))
    for key in jax.random.split(jax.random.key(6), chunks):
        state = advance(state, learnt, some, key)
    return jax.device_get(dataclasses.replace(state, env_state=state.env_state.physics))


@pytest.fixture(scope="module")
def together(trial, learnt, spread):
    return played(trial, learnt, spread)


def test_gates_side_by_side_do_what_each_does_alone(trial, learnt, spread, together):
    for g in range(len(spread.horizon)):
        alone = played(trial, learnt, jax.tree.map(lambda x, g=g: x[g][None], spread))
        own = jax.tree.map(lambda x, g=g: x[g][None], together)
        for ours, theirs in zip(jax.tree.leaves(own), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_each_gate_acts_by_its_own_numbers(together):
    steps, recovered = 3 * CHUNK, together.counters.recovered_steps
    assert (together.alarms[0] == together.calm[0]).all()  # eps_safe < 0: always an alarm
    assert not recovered[3].any() and not together.alarms[3].any()  # eps_safe = inf: never
    for g in (1, 2):
        assert 0 < together.alarms[g].sum() < together.calm[g].sum()
        assert 0 < recovered[g].sum() < recovered[0].sum()
    assert (together.calm + together.counters.failing_steps == steps).all()


def test_gates_at_work_are_one_program_whatever_their_numbers(trial, learnt, together):
    _, advance = trial
    before = advance._cache_size()
    played(trial, learnt, gates((1, 3, 15, 20), (0.7, 0.8, 0.9, 0.99), (0.1, 0.2, 0.3, 0.4)), 1)
    assert advance._cache_size() == before


def test_outcomes_by_hand():
    """Two environments, one gate and the baseline; normalised return is 5 times the toy's."""
    whole = lambda *rows: jnp.asarray(rows)
    none = jnp.zeros((2, 2), jnp.int32)
    names = [f.name for f in dataclasses.fields(Counters)]
    counters = Counters(**dict.fromkeys(names, none)).replace(
        episodes=whole([10, 30], [20, 20]),
        successes=whole([5, 5], [20, 0]),
        failure_episodes=whole([1, 0], [4, 4]),
        failing_steps=whole([10, 0], [0, 0]),
        recovered_steps=whole([50, 50], [0, 0]),
        return_sum=whole([40.0, 40.0], [100.0, 300.0]),
    )
    calm, alarms = whole([90, 100], [100, 100]), whole([19, 19], [0, 0])
    memory = GateMemory(none, none, none, none)
    gate, base = horizon.outcomes(
        horizon.Trial(memory, None, counters, calm, alarms), make_toy(2), draws=400
    )
    assert (gate["episodes"], gate["failure_episodes"]) == (40, 1)
    assert gate["failure_rate"] == 1 / 40 and gate["success"] == 10 / 40
    assert gate["reduction_percent"] == 87.5 and base["reduction_percent"] == 0.0
    assert gate["reduction_percent_interval"] == list(intervals.reduction(1, 8)[::2])
    np.testing.assert_allclose([gate["return"], base["return"]], [10.0, 50.0])
    np.testing.assert_allclose(base["return_interval"], [25.0, 75.0])
    np.testing.assert_allclose(gate["trigger_rate"], 38 / 190)
    np.testing.assert_allclose(gate["recovered_share"], 0.5)
    safe = counters.replace(failure_episodes=none)
    *_, base = horizon.outcomes(horizon.Trial(memory, None, safe, calm, alarms), make_toy(2), 10)
    assert np.isnan([base["reduction_percent"], *base["reduction_percent_interval"]]).all()


def test_limits_of_a_share_against_published_values():
    np.testing.assert_allclose(intervals.wilson_interval(0, 10), (0.0, 0.2775), atol=1e-4)
    np.testing.assert_allclose(intervals.wilson_interval(5, 10), (0.2366, 0.7634), atol=1e-4)
    assert intervals.wilson_interval(0, 0) == (0.0, 1.0)


def test_fewer_failures_of_few_are_not_sure():
    """0 of 3 is no proof; at 10 against 40 the limits agree with a simulation of both counts."""
    least, fewer, most = intervals.reduction(0, 3)
    assert least < 0.0 and fewer == most == 100.0
    least, fewer, most = intervals.reduction(10, 40)
    assert fewer == pytest.approx(75.0)
    counts = np.random.default_rng(0).poisson([[10], [40]], (2, 20_000))
    simulated = np.quantile(100 * (1 - counts[0] / counts[1]), [0.025, 0.975])
    np.testing.assert_allclose([least, most], simulated, atol=6.0)


def test_recall_falls_with_the_lead_that_is_asked_for():
    """Failures at 10 and 30 of two episodes of 20; alarms 5 and 2 steps, and 3 steps, before."""
    failure, done, cost = np.zeros((40, 1), bool), np.zeros((40, 1), bool), np.zeros((40, 1))
    failure[[10, 30]], done[[19, 39]], cost[[5, 8, 27]] = True, True, 1.0
    labels, _ = diagnosis.later_failures(failure, done, 6)
    report = horizon.foresight(cost, labels, done, 0.5, lead_time=2)
    assert report["recall_by_lead"] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.0]
    assert report["recall"] == 1.0 and report["lead"] == 4.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"horizons": ()}, "horizons must have at least 1 entries"),
        ({"horizons": (3, 3)}, "not have an entry twice"),
        ({"horizons": (0,)}, r"horizons\[0\] must be at least 1"),
        ({"gammas": (1.5,)}, r"gammas\[0\] must be above 0 and at most 1"),
        ({"trigger_rates": (0.0,)}, r"trigger_rates\[0\] must be above 0"),
        ({"num_envs": 0}, "num_envs must be at least 1"),
    ],
)
def test_a_study_that_cannot_work_is_refused(change, said):
    with pytest.raises(SchemaError, match=said):
        dataclasses.replace(HorizonConfig(), **change)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "no run at nowhere"),
        (["nowhere", "--horizons", "0"], "--horizons must be at least 1"),
    ],
)
def test_the_command_refuses_in_one_line(capsys, words, said):
    assert main(["sweep", "horizon", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]


def test_the_figure_is_drawn_also_where_nothing_failed(tmp_path):
    def row(h, rate):
        number = lambda x: x if rate > 0.05 else None
        acting = {"return": 50.0, "return_interval": [40.0, 60.0], "trigger_rate": 0.1}
        acting |= {"reduction_percent": number(80.0)}
        acting |= {"reduction_percent_interval": [number(70.0), number(90.0)]}
        watched = {"recall": number(0.5), "lead": number(3.0), "recall_by_lead": [number(0.5)] * 15}
        where = {"horizon": h, "gamma_risk": 0.95, "target_rate": rate, "beyond_training": h > 12}
        return where | {"acting": acting, "watched": watched}

    rows = [row(h, rate) for rate in (0.05, 0.1) for h in (5, 15)]
    report = {"task": "toy", "seed": 0, "policy_step": 0, "train_horizon": 13, "command": "farl"}
    report |= {"rows": rows, "ungated": {"failure_episodes": 0, "episodes": 9, "return": 45.0}}
    path = horizon_figure(tmp_path / "new" / "horizon.png", report)
    assert path.stat().st_size > 10_000
