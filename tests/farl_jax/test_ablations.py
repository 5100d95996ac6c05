"""The ablations in the online loop of the toy: exact limits, exact resume, who acts and who learns.

What is common to all methods is tested in test_online.py.
"""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import MPPIConfig, RiskCriticConfig
from farl_jax.data.dataset import from_rollout
from farl_jax.methods import METHODS
from farl_jax.online.loop import current, make_online, train
from farl_jax.safety import risk_critic
from farl_jax.storage import checkpoint
from tests.farl_jax.online.test_loop import (
    ENVS,
    GATED,
    NETS,
    assert_alike,
    assert_identical,
    frozen,
    gate,
    raw,
    run,
)
from tests.parameters import random_parameters
from tests.toy import make_toy

DEAR = (pytest.param(name, marks=pytest.mark.slow) for name in ("mppi", "no_recovery", "sooper"))
ABLATIONS = ("simple_critic", *DEAR)
CONFIG = dataclasses.replace(
    GATED,
    risk_critic=RiskCriticConfig(
        batch=16,
        every=2,
        chunk=2,
        transitions=64,
        failing_transitions=64,
        transitions_per_rollout=32,
    ),
    mppi=MPPIConfig(samples=8, elites=2, horizon=2, slots=4),
)
offline = frozen  # the fixture by another name, so that it may be built upon


@pytest.fixture(scope="module")
def start(offline):
    critic = random_parameters(NETS.critic, np.zeros((1, 2)), np.zeros((1, 1)), seed=5)
    return offline.replace(risk_critic=jax.tree.map(jnp.asarray, critic))


@pytest.fixture(scope="module")
def phases():
    names = ("uni_o4", "simple_critic", "mppi", "no_recovery", "sooper")
    return {name: make_online(make_toy(ENVS), NETS, CONFIG, METHODS[name]) for name in names}


@pytest.fixture(scope="module")
def ungated(phases, start):
    return run(phases["uni_o4"], start, np.inf, rounds=2)


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_infinite_threshold_reproduces_the_ungated_run(phases, start, ungated, name):
    """Bit for bit, but without recovery XLA rounds a few actions' last bit otherwise."""
    same = partial(assert_alike, tolerance=1e-5) if name == "no_recovery" else assert_identical
    state, _, steps = run(phases[name], start, np.inf, rounds=2)
    reference, _, ungated_steps = ungated
    assert steps.decision.risk.max() > 0
    decision = steps.decision.replace(risk=ungated_steps.decision.risk)
    same(steps.replace(decision=decision), ungated_steps)
    for part in ("learners", "counters", "key", "env_state"):
        same(getattr(state, part), getattr(reference, part))


@pytest.mark.parametrize("name", ABLATIONS)
def test_what_acts_behind_a_threshold_below_zero(phases, start, name):
    _, _, steps = run(phases[name], start, -1.0, rounds=1)
    acts, action = steps.decision.intervened, steps.decision.action
    assert acts.all()
    if name == "no_recovery":
        assert not action.any()
    if name == "mppi":
        assert np.abs(action).max() <= 1.0 and np.abs(action).mean() > 0.05
    if name == "simple_critic":
        obs = start.normalizer(steps.obs)
        mean = NETS.policy.apply(start.recovery, obs)[0]
        np.testing.assert_allclose(action, mean, rtol=1e-5, atol=1e-6)
        critic = risk_critic.make_critic_risk(NETS.critic, start.risk_critic)
        risk = critic(obs, steps.decision.task_action).risk
        np.testing.assert_allclose(steps.decision.risk, risk, rtol=1e-4)


def test_only_the_critic_of_the_simple_critic_learns_and_it_resumes_exactly(
    phases, start, ungated, tmp_path
):
    phase, rows = phases["simple_critic"], jax.tree.map(jnp.asarray, ungated[2])
    demos = risk_critic.to_risk_data(from_rollout(rows))
    copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
    rehearsal = (CONFIG.risk_critic.every, demos)
    go = lambda state, updates: [
        copy(s)
        for s, _ in train(
            phase, state, start, gate(0.5), updates * phase.steps_per_update, rehearsal
        )
    ]
    states = go(phase.init(start, jax.random.key(7)), 4)
    learnt = [current(s, start) for s in states]
    critics = [raw(start.risk_critic), *(raw(one.risk_critic) for one in learnt)]
    changed = [
        any(not np.array_equal(a[k], b[k]) for k in a) for a, b in itertools.pairwise(critics)
    ]
    assert changed == [False, True, False, True]
    assert all(one.world_model is start.world_model for one in learnt)

    checkpoint.save(tmp_path, 2, {"state": states[1]}, {"task": "toy"})
    abstract = {"state": jax.eval_shape(phase.init, start, jax.random.key(0))}
    _, items, _ = checkpoint.restore(tmp_path, abstract, expect={"task": "toy"})
    assert_identical(go(items["state"], 4)[-1], states[3])


def test_a_plan_survives_a_checkpoint(phases, start, tmp_path):
    half, _, _ = run(phases["mppi"], start, -1.0, rounds=1)
    assert np.abs(half.memory.plan).max() > 0
    checkpoint.save(tmp_path, 1, {"state": half}, {})
    abstract = {"state": jax.eval_shape(phases["mppi"].init, start, jax.random.key(0))}
    _, items, _ = checkpoint.restore(tmp_path, abstract)
    assert_identical(items["state"], half)


@pytest.mark.parametrize("name", ["uni_o4", "farl"])
def test_other_methods_store_nothing_of_it(offline, name):
    phase = make_online(make_toy(ENVS), NETS, CONFIG, METHODS[name])
    state = jax.eval_shape(phase.init, offline, jax.random.key(0))
    assert state.memory.plan is None and state.adaptation is None
    assert len(jax.tree.leaves(state.memory)) == 4
