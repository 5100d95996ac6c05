"""Public functions refuse shapes that would broadcast without an error."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from farl_jax.config import ConstraintConfig, MPPIConfig, OnlineConfig, SafetyConfig
from farl_jax.data import dataset, margins, rewards, ring, rollout
from farl_jax.measure import diagnosis, evaluate, horizon, intervals
from farl_jax.nn import distributions, normalize, training
from farl_jax.offline import bc, iql, ope
from farl_jax.online.counters import Counters
from farl_jax.safety import calibration, gate, imagination, mppi, risk_critic
from farl_jax.updates import constrained, costs, cpo, ppo, returns
from farl_jax.world_model import adaptation, learning, scores, windows

ONE, FLAT, COLUMN, TABLE, CUBE = (jnp.ones(s) for s in ((), (6,), (6, 1), (6, 4), (3, 6, 4)))
LIMITS, KEY = ConstraintConfig(), jax.random.key(0)
STEPS = SimpleNamespace(
    obs=CUBE,
    next_obs=CUBE,
    done=FLAT,
    decision=SimpleNamespace(intervened=FLAT),
    success=TABLE,
    episode_return=TABLE,
    failing_steps=jnp.ones((3, 4)),
    failure=TABLE,
    reward=TABLE,
    terminated=FLAT,
)
WINDOWS = ring.create_ring(5, 2, 3, 4)
BATCH = SimpleNamespace(obs=TABLE, advantage=FLAT, weight=FLAT, log_prob=FLAT)
UNEVEN = SimpleNamespace(obs=TABLE, action=TABLE, advantage=FLAT, weight=COLUMN, log_prob=FLAT)
DECISION = SimpleNamespace(
    action=CUBE, task_action=CUBE, log_prob=CUBE[..., 0], task_log_prob=FLAT, intervened=FLAT > 0
)
JUDGED = gate.Judgement(FLAT)
COST = SimpleNamespace(advantage=COLUMN, live=COLUMN)
DATA = {"episode": np.zeros((6, 1)), "failure": np.zeros((6, 1))}
MEMORY = gate.GateMemory.create(6)

CALLS = {
    "sample": lambda: distributions.sample(KEY, TABLE, TABLE[0]),
    "log_prob": lambda: distributions.log_prob(TABLE, TABLE, TABLE[0]),
    "kl_divergence": lambda: distributions.kl_divergence(TABLE, TABLE, TABLE[0], TABLE[0]),
    "fit_normalizer": lambda: normalize.fit_normalizer(np.ones((3, 6, 4)), 1.0),
    "polyak": lambda: training.polyak({"w": TABLE}, {"w": FLAT}, 0.5),
    "apply_gradient": lambda: training.Learner.create(TABLE, optax.sgd(1.0)).apply_gradient(
        FLAT[:4], optax.sgd(1.0)
    ),
    "generalized_advantage": lambda: returns.generalized_advantage(
        TABLE, TABLE, COLUMN, TABLE > 0, TABLE > 0, discount=0.9, trace=0.9
    ),
    "generalized_advantage of one environment": lambda: returns.generalized_advantage(
        FLAT, FLAT, FLAT, FLAT > 0, FLAT > 0, discount=0.9, trace=0.9
    ),
    "make_cost_batch": lambda: costs.make_cost_batch(None, None, None, STEPS, LIMITS),
    "CostRate.add": lambda: costs.CostRate.create().add(STEPS, 10),
    "cost_to_come": lambda: costs.cost_to_come(DATA, 0.9),
    "conjugate_gradient": lambda: cpo.conjugate_gradient(lambda v: v, COLUMN, 2),
    "solve_dual": lambda: cpo.solve_dual(FLAT, ONE, ONE, ONE, 0.01),
    "search_line": lambda: cpo.search_line(None, FLAT, ONE, ONE, ONE, LIMITS),
    "improve": lambda: cpo.improve(None, FLAT, BATCH, (FLAT, COLUMN), ONE, None, LIMITS),
    "ascend": lambda: constrained.ascend(ONE, FLAT, LIMITS),
    "centered_cost": lambda: constrained.centered_cost(BATCH, COST),
    "lagrangian_loss": lambda: constrained.lagrangian_loss(None, None, (BATCH, COST), ONE, None),
    "p3o_loss": lambda: constrained.p3o_loss(None, None, (BATCH, COST), ONE, None, 20.0),
    "store": lambda: ring.store(
        WINDOWS, {name: TABLE for name in WINDOWS.fields}, TABLE > 0, KEY, 2, 32
    ),
    "learner_reward": lambda: rewards.learner_reward(TABLE, COLUMN > 0, 10.0, 0.9),
    "foreseen_margin": lambda: margins.foreseen_margin(TABLE, COLUMN, 5.0),
    "select_episodes": lambda: dataset.select_episodes(DATA, np.arange(2)),
    "negative_log_likelihood": lambda: bc.negative_log_likelihood(None, None, TABLE, TABLE[:1]),
    "advantage": lambda: iql.advantage(None, None, None, TABLE, TABLE[:1]),
    "evaluate_policy": lambda: ope.evaluate_policy(None, None, None, None, FLAT, 3),
    "is_better": lambda: ope.is_better(FLAT, COLUMN),
    "first_episodes": lambda: evaluate.first_episodes(STEPS),
    "bootstrap_interval": lambda: intervals.bootstrap_interval(np.ones((6, 4))),
    "later_failures": lambda: diagnosis.later_failures(TABLE > 0, COLUMN > 0, 2),
    "foresight": lambda: diagnosis.foresight(CUBE, CUBE > 0, CUBE[:1] > 0, TABLE > 0),
    "reliability": lambda: diagnosis.reliability(COLUMN, CUBE > 0, CUBE > 0, TABLE > 0, 0.9),
    "in_time_order": lambda: diagnosis.in_time_order(TABLE > 0, COLUMN),
    "gate_report": lambda: diagnosis.gate_report(COLUMN, CUBE > 0, TABLE > 0, 0.1, 2),
    "treat_recovered": lambda: ppo.treat_recovered(
        SimpleNamespace(decision=DECISION), "executed", -5.0
    ),
    "clipped_surrogate": lambda: ppo.clipped_surrogate(FLAT, FLAT[:1], 0.2),
    "weighted_mean": lambda: ppo.weighted_mean(FLAT, COLUMN),
    "standardize": lambda: ppo.standardize(FLAT, COLUMN),
    "departure": lambda: ppo.departure(FLAT, TABLE, SimpleNamespace(weight=FLAT[:1], counted=None)),
    "policy_loss": lambda: ppo.policy_loss(None, None, UNEVEN, OnlineConfig()),
    "descend": lambda: ppo.descend(None, None, None, FLAT > 0, 0.1),
    "fit_value": lambda: ppo.fit_value(None, None, None, TABLE, COLUMN),
    "failure_onsets": lambda: calibration.failure_onsets(np.ones(6, bool), np.zeros(1)),
    "foreseen_peaks": lambda: calibration.foreseen_peaks(COLUMN, FLAT > 0, FLAT, 2),
    "calibrate_max_risk": lambda: calibration.calibrate_max_risk(
        np.ones(6), np.ones(6, bool), np.zeros(6), np.ones(1, bool), SafetyConfig()
    ),
    "remember": lambda: gate.remember(MEMORY, FLAT > 0, FLAT[:1]),
    "forget": lambda: gate.forget(MEMORY, FLAT[:1] > 0, FLAT[:1] > 0),
    "forget for another control group": lambda: gate.forget(MEMORY, FLAT > 0, FLAT[:1] > 0),
    "handing_over": lambda: rollout.handing_over(None, None)(COLUMN, None, KEY),
    "recover": lambda: gate.recover(FLAT[:1] > 0, MEMORY, SafetyConfig()),
    "too_risky": lambda: gate.too_risky(JUDGED, ONE, jnp.ones(1, int), SafetyConfig()),
    "acting_share": lambda: gate.acting_share(STEPS),
    "follow": lambda: gate.follow(ONE, FLAT, FLAT, SafetyConfig()),
    "adapted": lambda: gate.Gate.create(1, 0.9, 0.1).adapted(FLAT, SafetyConfig()),
    "gated_controller": lambda: gate.gated_controller(
        None, None, None, None, FLAT, SafetyConfig(), explore=False
    ),
    "first_passage": lambda: imagination.first_passage(TABLE, FLAT[:1], ONE, ONE),
    "first_passage of several H": lambda: imagination.first_passage(TABLE, FLAT[:4], FLAT, ONE),
    "accumulated": lambda: imagination.accumulated(
        TABLE, FLAT, gate.Gate.create(1, 0.9, 0.1), SafetyConfig()
    ),
    "discounted_sum": lambda: imagination.discounted_sum(TABLE, FLAT, ONE),
    "imagine": lambda: imagination.imagine(None, None, None, TABLE, TABLE[0], 3, 1),
    "imagined_value": lambda: mppi.imagined_value(None, None, TABLE, CUBE, 1.0),
    "refine": lambda: mppi.refine(CUBE, FLAT[:1], MPPIConfig()),
    "plan": lambda: mppi.plan(None, TABLE, jnp.ones((2, 1, 3, 4)), MPPIConfig()),
    "plan_where": lambda: mppi.plan_where(FLAT > 0, None, CUBE, 2),
    "risk_target": lambda: learning.risk_target(FLAT, FLAT > 0, COLUMN, 0.9),
    "predict_risk": lambda: risk_critic.predict_risk(None, None, TABLE, TABLE[:1]),
    "to_risk_data": lambda: risk_critic.to_risk_data(DATA),
    "usable_windows": lambda: adaptation.usable_windows(
        {k: TABLE > 0 for k in ("done", "unusable", "failure")} | {"failing_steps": FLAT}, 2, 1
    ),
    "window_fields": lambda: adaptation.window_fields(STEPS, None),
    "roll_latents": lambda: learning.roll_latents(None, None, TABLE[:1], CUBE),
    "predict_failures": lambda: learning.predict_failures(None, None, TABLE[:1], CUBE),
    "auroc": lambda: scores.auroc(TABLE, TABLE > 0),
    "average_precision": lambda: scores.average_precision(FLAT, COLUMN > 0),
    "calibration_error": lambda: scores.calibration_error(FLAT, COLUMN > 0),
    "failure_report": lambda: scores.failure_report(TABLE, TABLE > 0, FLAT > 0),
    "importance": lambda: windows.importance(COLUMN > 0, ONE, 0.5),
    "failing_run_index": lambda: windows.failing_run_index(np.ones(6, bool), np.zeros((6, 1))),
    "window_starts": lambda: windows.window_starts(DATA, 2, 1),
    "Counters.add": lambda: Counters.zero().add(STEPS),
    "matched_thresholds": lambda: horizon.matched_thresholds(CUBE, COLUMN > 0, [0.1]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_shape_is_refused(call):
    with pytest.raises(AssertionError, match="assert_"):
        call()
