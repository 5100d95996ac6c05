"""The risk R and the gate on a model whose answers are known by hand."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig, NetworkConfig, SafetyConfig, WorldModelConfig
from farl_jax.nn import distributions
from farl_jax.nn.distributions import draw_rows
from farl_jax.safety.calibration import calibrate_max_risk, foreseen_peaks
from farl_jax.safety.gate import (
    ALARMS,
    PACE,
    QUIET,
    Gate,
    GateMemory,
    Judgement,
    acting_share,
    alarm,
    follow,
    forget,
    gated_controller,
    in_control,
    policy_recovery,
    recover,
    remember,
    too_risky,
    zero_recovery,
)
from farl_jax.safety.imagination import (
    discounted_sum,
    first_passage,
    imagine,
    imagined_failures,
    make_backup_risk,
    make_imagined_risk,
)
from farl_jax.types import Normalizer
from tests.parameters import random_parameters
from tests.toy import make_toy


class CliffModel:
    """The cliff walker as a perfect world model: z is x, failing when the action leads over 0.9."""

    @staticmethod
    def apply(params, *args, method):
        if method == "encode":
            return args[0]
        if method == "decode":
            return args[0]
        z, action = args
        moved = z + 0.1 * action
        if method == "next":
            return moved
        return jnp.where(moved[..., 0] > 0.9, 40.0, -40.0)  # failure logit: certain either way


def failures(mean_action, obs, action, horizon, hold):
    """p_0..p_H of a policy on the perfect model."""
    imagined = imagine(CliffModel, None, mean_action, obs, action, horizon, hold)
    assert imagined.latent.shape[0] == horizon + 1
    return imagined.failures(CliffModel, None, horizon + 1)


def risk_of(p, horizon, gamma, tail=0.0):
    p = jnp.asarray(p, jnp.float32)
    tail = jnp.broadcast_to(jnp.float32(tail), p.shape[1:])
    return np.asarray(first_passage(p, tail, jnp.asarray(horizon), jnp.asarray(gamma)))


def test_risk_equals_the_hand_sum():
    p = [[0.1, 0.5], [0.2, 0.0], [0.4, 1.0], [0.8, 0.25]]
    by_hand = [0.1 + 0.9 * 0.9 * 0.2 + 0.81 * 0.72 * 0.4, 0.5 + 0.81 * 0.5]
    np.testing.assert_allclose(risk_of(p, 2, 0.9), by_hand, rtol=1e-6)
    alive = np.array([0.9 * 0.8 * 0.6, 0.0])
    np.testing.assert_allclose(
        risk_of(p, 2, 0.9, tail=0.5), by_hand + 0.9**3 * alive * 0.5, rtol=1e-6
    )


def test_the_papers_cost_is_a_plain_sum_by_hand():
    p = jnp.array([[0.1, 0.5], [0.2, 0.0], [0.4, 1.0], [0.8, 0.25]])
    cost = lambda p: np.asarray(discounted_sum(p, jnp.asarray(2), jnp.asarray(0.9)))
    by_hand = [0.1 + 0.9 * 0.2 + 0.81 * 0.4, 0.5 + 0.81]
    np.testing.assert_allclose(cost(p), by_hand, rtol=1e-6)
    np.testing.assert_allclose(cost(jnp.ones_like(p)), 1 + 0.9 + 0.81, rtol=1e-6)
    np.testing.assert_allclose(cost(1e-4 * p), risk_of(1e-4 * p, 2, 0.9), rtol=1e-3)


def test_a_horizon_of_minus_one_is_the_tail_alone():
    np.testing.assert_allclose(risk_of([[0.7, 0.2]], -1, 0.9, tail=[0.3, 0.6]), [0.3, 0.6])
    np.testing.assert_allclose(risk_of(np.zeros((0, 2)), -1, 0.9, tail=[0.3, 0.6]), [0.3, 0.6])


def test_a_true_tail_makes_the_horizon_irrelevant():
    """Q at step H + 1 by Q = p + (1 - p) g Q' from behind: R is the same for every H."""
    p = np.random.default_rng(0).random((9, 5)) ** 3
    q, tails = np.zeros(5), []
    for row in p[::-1]:
        q = row + (1 - row) * 0.95 * q
        tails.insert(0, q)
    risks = [risk_of(p, horizon, 0.95, tails[horizon + 1]) for horizon in range(-1, 8)]
    np.testing.assert_allclose(risks, np.broadcast_to(tails[0], (9, 5)), rtol=1e-5)
    assert np.min(risks) > 0.0 and np.max(risks) < 1.0
    assert (risk_of(np.ones((9, 5)), 8, 1.0, tail=1.0) == 1.0).all()


def test_known_failure_time():
    """From x = 0.55 at full speed the 4th action crosses 0.9: p_3 is the first 1."""
    p = failures(jnp.ones_like, jnp.array([[0.55]]), jnp.ones((1, 1)), 5, 1)
    np.testing.assert_allclose(p[:, 0], [0, 0, 0, 1, 1, 1], atol=1e-6)
    for horizon in range(6):
        first = 0.95**3 if horizon >= 3 else 0.0
        np.testing.assert_allclose(risk_of(p, horizon, 0.95)[0], first, atol=1e-5)


def test_first_action_is_the_one_about_to_be_taken():
    """Walking left is safe even beside the cliff; what follows is the task policy's."""
    left, right = -jnp.ones((1, 1)), jnp.ones((1, 1))
    roll = lambda a: failures(jnp.zeros_like, jnp.array([[0.85]]), a, 3, 1)[:, 0]
    np.testing.assert_allclose(roll(left), [0, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(roll(right), [1, 1, 1, 1], atol=1e-6)


@pytest.mark.parametrize("hold", [1, 2, 3, 7])
@pytest.mark.parametrize("horizon", [1, 4, 6])
def test_each_imagined_action_is_held(hold, horizon):
    """At x the policy wants 1 - x, but an action lasts `hold` steps: against a loop by hand."""
    wants = lambda x: 1.0 - x
    p = failures(wants, jnp.full((1, 1), 0.63), jnp.ones((1, 1)), horizon, hold)
    x, action, by_hand = 0.63, 1.0, []
    for i in range(horizon + 1):
        action = 1.0 - x if i > 0 and i % hold == 0 else action
        x += 0.1 * action
        by_hand.append(float(x > 0.9))
    np.testing.assert_allclose(p[:, 0], by_hand, atol=1e-6)


def test_horizon_sweep_compiles_once():
    count = 0

    @jax.jit
    def cost(p, horizon, gamma):
        nonlocal count
        count += 1
        return first_passage(p, jnp.zeros(3), horizon, gamma)

    p = jnp.full((11, 3), 0.5)
    for horizon in range(11):
        got = cost(p, jnp.asarray(horizon), jnp.asarray(0.9))
        by_hand = sum(0.45**i * 0.5 for i in range(horizon + 1))
        np.testing.assert_allclose(got, by_hand, rtol=1e-5)
    assert count == 1


def test_recovery_lasts_and_ends():
    risky = jnp.array([True, False, False, False, True])
    recovering = jnp.array([0, 2, 3, 0, 5])
    memory = GateMemory.create(5).replace(recovering=recovering)
    acts, length = recover(risky, memory, SafetyConfig(min_recovery_steps=3, max_recovery_steps=5))
    np.testing.assert_array_equal(acts, [True, True, False, False, False])
    np.testing.assert_array_equal(length, [1, 3, 0, 0, 0])


def test_in_the_control_group_recovery_never_acts_until_the_episode_ends():
    no = jnp.zeros(3, bool)
    memory = forget(GateMemory.create(3), ~no, jnp.array([True, False, True]))
    memory = forget(memory, no, ~no)  # drawn in mid-episode: without effect
    for _ in range(5):
        acts, recovering = recover(~no, memory, SafetyConfig())
        np.testing.assert_array_equal(acts, [False, True, False])
        memory = remember(memory, acts, recovering)
    memory = forget(memory, jnp.array([True, False, False]), no)
    np.testing.assert_array_equal(recover(~no, memory, SafetyConfig())[0], [True, True, False])


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
def test_the_control_group_has_its_share_of_the_episodes(share):
    drawn = in_control(jax.random.normal, jax.random.key(0), 20_000, share)
    assert abs(float(drawn.mean()) - share) <= 4 * (share * (1 - share) / 20_000) ** 0.5
    some = in_control(draw_rows(20_000, jnp.asarray(300)), jax.random.key(0), 50, share)
    np.testing.assert_array_equal(some, drawn[300:350])


def test_a_failure_is_blamed_on_what_the_gate_had_done():
    """One environment: quiet, six steps of recovery with a pause of two, then none."""
    acts = [0, 0, 1, 1, 0, 0, 1, 1, 1, 1] + [0] * 13 + [1]
    memory, blamed = GateMemory.create(1), []
    for now in acts:
        memory = remember(memory, jnp.array([bool(now)]), jnp.array([now]))
        blamed.append(ALARMS[int(alarm(memory)[0])])
    silent, late, failed, after = ALARMS
    expected = [silent] * 2 + [late] * 4 + [failed] * 7 + [after] * 8 + [silent] * 2 + [late]
    assert blamed == expected


def test_an_alarm_without_end_is_broken_off_for_as_long_as_quiet_takes():
    config, memory, acted = (
        SafetyConfig(max_recovery_steps=1000, patience=10),
        GateMemory.create(1),
        [],
    )
    for _ in range(30):
        acts, recovering = recover(jnp.array([True]), memory, config)
        memory = remember(memory, acts, recovering)
        acted.append(bool(acts[0]))
    assert acted == [True] * 10 + [False] * QUIET + [True] * 8


TOY = make_toy(4)
NETS = Networks.create(
    FarlConfig(
        network=NetworkConfig(width=16, depth=1),
        world_model=WorldModelConfig(width=16),
    ),
    TOY.observation_size,
    TOY.action_size,
)


@jax.jit
def _decide(learnt, max_risk):
    """One step of the gated controller from reset: (states, memory, decision)."""
    config = SafetyConfig(max_recovery_steps=1000, horizon=5)
    gate = Gate.create(5, 0.95, max_risk)
    risk = make_imagined_risk(NETS, learnt, gate, config)
    recovery = policy_recovery(NETS.policy, learnt.recovery)
    act = gated_controller(NETS.policy, learnt, risk, recovery, gate.max_risk, config, explore=True)
    state = TOY.reset(jax.random.key(2))
    return state, *act(GateMemory.create(4), state, jax.random.key(3))


def _gated(max_risk, spoil=1.0):
    obs, action = np.zeros((1, 2)), np.zeros((1, 1))
    task, recovery = (random_parameters(NETS.policy, obs, seed=i) for i in range(2))
    world = random_parameters(NETS.latent, obs, action, seed=2)
    learnt = Agent(
        policy=task,
        value={},
        recovery=recovery,
        world_model=jax.tree.map(lambda x: np.float32(spoil) * x, world),
        normalizer=Normalizer(jnp.zeros(2), jnp.ones(2)),
        max_risk=jnp.zeros(()),
    )
    return task, recovery, *_decide(learnt, max_risk)


def asked(cost, recovering=0, remedy=None, max_risk=0.2, **settings):
    judged = Judgement(jnp.float32([cost]), None if remedy is None else jnp.float32([remedy]))
    config = SafetyConfig(**{"release": 1.0} | settings)
    return bool(too_risky(judged, jnp.float32(max_risk), jnp.array([recovering]), config)[0])


def test_when_recovery_is_asked_for():
    assert asked(0.21) and not asked(0.2) and asked(np.nan)
    assert not asked(1.0, max_risk=np.inf) and not asked(np.nan, max_risk=np.inf)
    assert asked(0.0, max_risk=-1.0) and asked(0.0, remedy=0.5, max_risk=-1.0)


def test_recovery_goes_on_until_the_risk_is_well_below_eps_safe():
    assert not asked(0.15, release=0.5) and asked(0.15, recovering=3, release=0.5)
    assert not asked(0.1, recovering=3, release=0.5)
    assert not asked(0.15, recovering=3)  # release 1: no hysteresis


def test_recovery_that_would_not_help_is_not_asked_for():
    helps = {"rule": "helps", "delta": 0.05}
    assert asked(0.5, remedy=0.4, **helps)
    assert not asked(0.5, remedy=0.46, **helps) and not asked(0.15, remedy=0.0, **helps)
    assert asked(np.nan, remedy=0.0, **helps) and asked(0.5, remedy=np.nan, **helps)


@pytest.mark.parametrize("rule", ["paper", "helps", "shield"])
def test_each_rule_imagines_its_own_policies(rule, learnt_toy):
    """Against R by hand from imagine() and the heads: whose mean, which action, whose tail."""
    config = SafetyConfig(rule=rule, tail=True, horizon=3, hold=2)
    gate, model, params = Gate.create(3, 0.9, 0.1), NETS.latent, learnt_toy.world_model
    obs, action = jnp.float32([[0.2, 0.5], [-0.4, 0.1]]), jnp.float32([[0.3], [-0.9]])
    mean = {
        "task": lambda s: NETS.policy.apply(learnt_toy.policy, s)[0],
        "recovery": lambda s: NETS.recovery.apply(learnt_toy.recovery, s)[0],
    }

    def by_hand(policy, action):
        seen = imagine(model, params, mean[policy], obs, action, 4, 2)
        q = model.apply(params, seen.latent[4], seen.action[4], method="risk")
        tail = jax.nn.sigmoid(q[["task", "recovery"].index(policy)]).mean(0)
        return first_passage(seen.failures(model, params, 4), tail, gate.horizon, gate.gamma_risk)

    got = jax.jit(make_imagined_risk(NETS, learnt_toy, gate, config))(obs, action)
    cost = by_hand("recovery" if rule == "shield" else "task", action)
    np.testing.assert_allclose(got.risk, cost, rtol=1e-4)
    assert np.abs(by_hand("task", action) - by_hand("recovery", action)).min() > 1e-4
    if rule == "paper":
        assert got.remedy is None
    else:
        remedy = by_hand("recovery", mean["recovery"](obs))
        np.testing.assert_allclose(got.remedy, remedy, rtol=1e-4)


def test_soopers_switch_asks_the_backup_policys_risk_head_alone(learnt_toy):
    obs, action = jnp.float32([[0.2, 0.5], [-0.4, 0.1]]), jnp.float32([[0.3], [-2.0]])
    got = make_backup_risk(NETS, learnt_toy)(obs, action)
    call = lambda name, *args: NETS.latent.apply(learnt_toy.world_model, *args, method=name)
    both = jax.nn.sigmoid(call("risk", call("encode", obs), jnp.clip(action, -1, 1))).mean(axis=1)
    np.testing.assert_allclose(got.risk, both[1], rtol=1e-6)  # (task, recovery)
    assert np.abs(both[0] - both[1]).min() > 1e-4 and got.remedy is None


@pytest.mark.parametrize("form", ["first_passage", "sum"])
def test_each_form_of_the_risk_reaches_the_gate(form, learnt_toy):
    config = SafetyConfig(form=form, tail=False, horizon=3)
    gate, obs, action = Gate.create(2, 0.9, 0.1), jnp.zeros((2, 2)), jnp.ones((2, 1))
    p = imagined_failures(NETS, learnt_toy, obs, action, 3, 1)
    got = make_imagined_risk(NETS, learnt_toy, gate, config)(obs, action).risk
    sums = {"first_passage": risk_of(p, 2, 0.9), "sum": p[0] + 0.9 * p[1] + 0.81 * p[2]}
    np.testing.assert_allclose(got, sums[form], rtol=1e-5)
    assert np.abs(sums["sum"] - sums["first_passage"]).min() > 1e-3


class Walks:
    """A policy that always walks at the speed that is its parameter."""

    @staticmethod
    def apply(speed, obs):
        return jnp.full_like(obs, speed), jnp.full_like(obs, -5.0)


def shielded(x, recovery, **settings):
    """Whether the gate acts on a step to the right at x, on the perfect model, H = 1."""
    config = SafetyConfig(**{"rule": "shield", "tail": False, "horizon": 1} | settings)
    nets = dataclasses.replace(NETS, policy=Walks, recovery=Walks, latent=CliffModel)
    learnt = Agent(1.0, None, recovery, None, Normalizer(jnp.zeros(1), jnp.ones(1)), jnp.zeros(()))
    gate = Gate.create(1, 0.97, 0.05)
    judged = make_imagined_risk(nets, learnt, gate, config)(jnp.full((1, 1), x), jnp.ones((1, 1)))
    return bool(too_risky(judged, gate.max_risk, jnp.zeros(1, jnp.int32), config)[0])


def test_a_shield_acts_at_the_last_moment_and_only_if_that_helps():
    """A step leads from x to x + 0.1 and recovery walks back, where it can. The cliff is at 0.9."""
    assert shielded(0.75, -1.0, rule="paper") and not shielded(0.75, -1.0)  # it can wait one step
    assert shielded(0.85, -1.0)
    assert shielded(1.05, -1.0, rule="paper") and not shielded(1.05, -1.0)  # nothing saves it


def test_a_shield_is_worth_more_than_delta():
    """At 0.85 recovery at 0.4 to the right fails one step later than the task: 1 against 0.97."""
    assert shielded(0.85, 0.4, delta=0.02) and not shielded(0.85, 0.4, delta=0.04)
    assert shielded(0.85, 0.4)  # by default


@pytest.fixture(scope="module")
def learnt_toy():
    obs, action = np.zeros((1, 2)), np.zeros((1, 1))
    grow = lambda tree: jax.tree.map(lambda leaf: jnp.asarray(3 * leaf), tree)
    return Agent(
        policy=grow(random_parameters(NETS.policy, obs, seed=0)),
        value={},
        recovery=grow(random_parameters(NETS.recovery, obs, seed=1)),
        world_model=grow(random_parameters(NETS.latent, obs, action, seed=2)),
        normalizer=Normalizer(jnp.zeros(2), jnp.ones(2)),
        max_risk=jnp.zeros(()),
    )


def eps_safe(drift, max_risk=0.5, **settings):
    config = SafetyConfig(**{"trigger_rate": 0.05, "min_risk": 0.1} | settings)
    return float(Gate.create(3, 0.95, max_risk).adapted(jnp.float32(drift), config).max_risk)


def followed(drift, acted, max_risk=0.5, **settings):
    config = SafetyConfig(**{"trigger_rate": 0.05, "min_risk": 0.1} | settings)
    return float(follow(jnp.float32(drift), jnp.float32(acted), jnp.float32(max_risk), config))


def test_eps_safe_is_max_risk_and_its_drift():
    np.testing.assert_allclose(eps_safe(0.0), 0.5, rtol=1e-6)
    np.testing.assert_allclose(eps_safe(np.log(0.5)), 0.25, rtol=1e-6)
    np.testing.assert_allclose([eps_safe(-9.0), eps_safe(9.0)], [0.1, 1.0], rtol=1e-6)
    assert eps_safe(-1.0, trigger_rate=None) == 0.5
    assert eps_safe(-1.0, max_risk=np.inf) == np.inf  # a gate that is off stays off
    assert eps_safe(1.0, max_risk=-1.0) == -1.0  # and one that always acts


def test_drift_follows_the_trigger_rate_by_hand():
    np.testing.assert_allclose(followed(0.1, 0.05), 0.1, rtol=1e-6)
    np.testing.assert_allclose(followed(0.1, 0.06), 0.1 + PACE * 0.2, rtol=1e-5)
    np.testing.assert_allclose(followed(0.1, 0.0), 0.1 - PACE, rtol=1e-5)
    np.testing.assert_allclose(followed(0.1, 1.0), 0.1 + PACE, rtol=1e-5)  # bounded
    assert followed(0.3, 1.0, trigger_rate=None) == np.float32(0.3)


def test_only_gated_steps_before_a_first_failure_say_how_often_recovery_acts():
    """One environment a column.

    The first has no failure. The second fails at its second step, which still counts, and goes on.
    The third is of the control group. The fourth's last two steps are over budget.
    """
    acts = jnp.array([[1, 1, 1, 1], [1, 0, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]], bool)
    steps = SimpleNamespace(
        failure=jnp.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool),
        failing_steps=jnp.array([[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 0, 0], [0, 2, 0, 0]]),
        decision=SimpleNamespace(
            intervened=acts, control=jnp.zeros((4, 4), bool).at[:, 2].set(True)
        ),
        counted=jnp.ones((4, 4), bool).at[2:, 3].set(False),
    )
    np.testing.assert_allclose(acting_share(steps), (2 + 1 + 2) / (4 + 2 + 2))
    steps.counted = None  # no budget of episodes: every step counts
    np.testing.assert_allclose(acting_share(steps), (2 + 1 + 4) / (4 + 2 + 4))
    steps.counted = jnp.zeros((4, 4), bool)
    assert acting_share(steps) == 0.0  # and not NaN


@pytest.mark.parametrize(("acted", "bound"), [(0.0, 0.1), (1.0, 1.0)])
def test_nothing_winds_up_where_the_rate_cannot_be_met(acted, bound):
    drift = 0.0
    for _ in range(1000):
        drift = followed(drift, acted)
    np.testing.assert_allclose(eps_safe(drift), bound, rtol=1e-5)
    back = followed(drift, 0.05 if acted else 0.1)  # the first rollout away from it moves eps_safe
    moved = followed(drift, 0.0 if acted else 1.0)
    assert back == pytest.approx(drift, abs=0.21) and eps_safe(moved) != pytest.approx(bound)


def test_the_rate_is_met_whatever_the_scale_of_risk():
    """Risks are log-uniform over two decades, from 1 or from 0.03 down."""
    for top in (1.0, 0.03):
        risk, drift = top * np.logspace(-2, 0, 10_000), 0.0
        for _ in range(300):
            limit = eps_safe(drift, min_risk=1e-4)
            drift = followed(drift, (risk > limit).mean(), min_risk=1e-4)
        assert 0.04 < (risk > eps_safe(drift, min_risk=1e-4)).mean() < 0.06


def test_infinite_threshold_never_recovers_and_keeps_the_noise():
    task, _, state, memory, decision = _gated(jnp.inf)
    mean, log_std = NETS.policy.apply(task, state.obs)
    expected = distributions.sample(jax.random.key(3), mean, log_std)
    np.testing.assert_array_equal(decision.action, decision.task_action)
    np.testing.assert_allclose(decision.action, expected, rtol=1e-5)
    assert not decision.intervened.any() and (memory.recovering == 0).all()


def test_a_model_without_a_number_is_an_alarm_unless_the_gate_is_off():
    for max_risk, recovers in ((1e-2, True), (jnp.inf, False)):
        *_, decision = _gated(max_risk, spoil=jnp.nan)
        assert jnp.isnan(decision.risk).all()
        assert (decision.intervened == recovers).all()


def test_negative_threshold_always_recovers_by_the_mean():
    task, recovery, state, memory, decision = _gated(-1.0)
    wanted = NETS.policy.apply(recovery, state.obs)[0]
    np.testing.assert_allclose(decision.action, wanted, rtol=1e-5)
    assert decision.intervened.all() and (memory.recovering == 1).all()
    mean, log_std = NETS.policy.apply(task, state.obs)
    np.testing.assert_allclose(
        decision.log_prob, distributions.log_prob(decision.action, mean, log_std), rtol=1e-5
    )


def test_no_recovery_holds_the_hand_still():
    plan, action = zero_recovery(3)(None, jnp.ones((4, 2)), jnp.arange(4), jax.random.key(0))
    assert plan is None
    np.testing.assert_array_equal(action, np.zeros((4, 3)))


def _held_out():
    """40 episodes of 50 steps; even ones fail at step 30, foreseen 3 steps ahead by risks 1..2."""
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(40), 50)
    cost, failure = rng.random(2000) * 0.5, np.zeros(2000, bool)
    onset = np.arange(20) * 100 + 30
    failure[onset] = True
    cost[onset - 3] = 1.0 + np.arange(20) / 20
    cost[onset - 1] = 5.0  # too late to count
    return cost, failure, episode, episode >= 20


def test_calibration_takes_the_least_intrusive_threshold_that_foresees_enough():
    cost, failure, episode, own = _held_out()
    chosen = calibrate_max_risk(cost, failure, episode, own, SafetyConfig(target_recall=0.9))
    assert chosen["onsets"] == 20 and chosen["recall"] >= 0.9
    assert 1.0 < chosen["max_risk"] < 1.1  # foresees 18 of the peaks 1.00, 1.05, 1.10, ...
    higher = np.sort(cost[np.arange(20) * 100 + 27])[2] + 1e-6
    assert (cost[np.arange(20) * 100 + 27] > higher).mean() < 0.9


def test_calibration_never_exceeds_the_trigger_rate_of_the_policys_own_steps():
    cost, failure, episode, own = _held_out()
    shy = SafetyConfig(target_recall=1.0, target_trigger_rate=0.001)
    chosen = calibrate_max_risk(cost, failure, episode, own, shy)
    assert chosen["trigger_rate"] <= 0.002 and chosen["recall"] < 1.0


def test_a_warning_in_another_episode_or_too_late_does_not_count():
    episode = np.repeat([0, 1], 5)
    failure = np.zeros(10, bool)
    failure[[6, 9]] = True  # second step of episode 1, and its last
    cost = np.array([0, 0, 0, 0, 9, 0, 0, 0.5, 0.25, 9.0])
    peaks = foreseen_peaks(cost, failure, episode, lead_time=2)
    np.testing.assert_array_equal(peaks, [0.5])  # onset at 6: nothing two steps ahead in episode 1
