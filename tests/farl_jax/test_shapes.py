"""Public functions refuse shapes that would broadcast without an error."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from farl_jax.config import ConstraintConfig
from farl_jax.data import dataset, margins, ring
from farl_jax.measure import diagnosis, evaluate, horizon, intervals
from farl_jax.nn import distributions, normalize, training
from farl_jax.offline import bc, iql, ope
from farl_jax.updates import constrained, costs, cpo, returns

ONE, FLAT, COLUMN, TABLE, CUBE = (jnp.ones(s) for s in ((), (6,), (6, 1), (6, 4), (3, 6, 4)))
LIMITS, KEY = ConstraintConfig(), jax.random.key(0)
STEPS = SimpleNamespace(
    obs=CUBE, next_obs=CUBE, done=FLAT, failing_steps=jnp.ones((3, 4)), failure=TABLE, reward=TABLE
)
WINDOWS = ring.create_ring(5, 2, 3, 4)
BATCH = SimpleNamespace(obs=TABLE, advantage=FLAT, weight=FLAT, log_prob=FLAT)
COST = SimpleNamespace(advantage=COLUMN, live=COLUMN)
DATA = {"episode": np.zeros((6, 1)), "failure": np.zeros((6, 1))}

CALLS = {
    "sample": lambda: distributions.sample(KEY, TABLE, TABLE[0]),
    "log_prob": lambda: distributions.log_prob(TABLE, TABLE, TABLE[0]),
    "kl_divergence": lambda: distributions.kl_divergence(TABLE, TABLE, TABLE[0], TABLE[0]),
    "fit_normalizer": lambda: normalize.fit_normalizer(np.ones((3, 6, 4))),
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
    "matched_thresholds": lambda: horizon.matched_thresholds(CUBE, COLUMN > 0, [0.1]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_wrong_shape_is_refused(call):
    with pytest.raises(AssertionError, match="assert_"):
        call()
