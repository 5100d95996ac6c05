"""The cost of a first failure: advantages by hand, its rate, and V_C from demonstrations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.config import ConstraintConfig
from farl_jax.nn.networks import Value
from farl_jax.types import Normalizer, Transition
from farl_jax.updates import costs

CONFIG = ConstraintConfig(discount=0.9, trace=0.5, window=10)
IDENTITY = Normalizer(jnp.zeros(1), jnp.ones(1))


class Itself:
    """V_C(s) = s."""

    @staticmethod
    def apply(params, obs):
        return obs[..., 0]


def rollout(**columns):
    """Steps [T, N] with the given fields, each a list of N columns of T numbers."""
    fields = dict.fromkeys([f.name for f in dataclasses.fields(Transition)])
    fields |= {name: jnp.asarray(column).swapaxes(0, 1) for name, column in columns.items()}
    return Transition(**fields)


def test_only_the_first_failure_costs_and_nothing_flows_past_it():
    """Left: fails at step 1, again at 2, is safe at 3, times out at 4. Right: succeeds at step 1;
    then a new episode, which times out at step 3; then one that goes on.
    """
    steps = rollout(
        obs=[[[0.2], [0.6], [0.7], [0.8], [0.9]], [[0.1], [0.2], [0.3], [0.4], [0.5]]],
        next_obs=[[[0.6], [0.7], [0.8], [0.9], [0.95]], [[0.2], [0.25], [0.4], [0.45], [0.55]]],
        failure=[[False, True, True, False, False], [False] * 5],
        first_failure=[[False, True, False, False, False], [False] * 5],
        failing_steps=[[0, 1, 2, 2, 2], [0] * 5],
        terminated=[[False] * 5, [False, True, False, False, False]],
        truncated=[[False, False, False, False, True], [False, False, False, True, False]],
    )
    batch = costs.make_cost_batch(Itself, None, IDENTITY, steps, CONFIG)
    carry = 0.9 * 0.5
    failing = 1.0 - 0.6
    left = [0.9 * 0.6 - 0.2 + carry * failing, failing, 0.0, 0.0, 0.0]
    timed_out = 0.9 * 0.45 - 0.4
    right = [
        0.9 * 0.2 - 0.1 + carry * (0.0 - 0.2),
        0.0 - 0.2,  # success: nothing to come
        0.9 * 0.4 - 0.3 + carry * timed_out,
        timed_out,  # bootstraps, and the next episode does not leak in
        0.9 * 0.55 - 0.5,
    ]
    advantage = np.array([left, right]).T
    np.testing.assert_allclose(batch.advantage.reshape(5, 2), advantage, atol=1e-6)
    live = np.array([[1, 1, 0, 0, 0], [1] * 5]).T
    np.testing.assert_array_equal(batch.live.reshape(5, 2), live)
    now = live * np.array([[0.2, 0.6, 0.7, 0.8, 0.9], [0.1, 0.2, 0.3, 0.4, 0.5]]).T
    np.testing.assert_allclose(batch.value_target.reshape(5, 2), advantage + now, atol=1e-6)


def ends(done, failing_steps):
    return rollout(
        terminated=[done], truncated=[[False] * len(done)], failing_steps=[failing_steps]
    )


def test_the_rate_is_the_failing_share_of_ended_episodes():
    rate = costs.CostRate.create()
    np.testing.assert_allclose(rate.estimate(0.05), 0.05)  # nothing ended: unknown
    rate = rate.add(ends([False, True, True, False], [3, 3, 0, 2]), 10)
    np.testing.assert_allclose(rate.estimate(0.05), 0.5)  # the one that is failing goes on
    same = rate.add(ends([False] * 4, [5, 6, 7, 8]), 10)
    np.testing.assert_allclose(same.estimate(0.05), 0.5)


def test_the_rate_forgets_what_lies_beyond_its_window():
    rate = costs.CostRate.create().add(ends([True] * 10, [1] * 10), 10)
    rate = rate.add(ends([True] * 10, [0] * 10), 10)
    np.testing.assert_allclose(rate.ended, 10.0)
    np.testing.assert_allclose(rate.estimate(0.0), 0.5)  # 10 of 20
    rate = rate.add(ends([True] * 10, [0] * 10), 10)
    np.testing.assert_allclose(rate.estimate(0.0), 0.25)  # 5 of 20


def demonstrations():
    """Observation (kind, step): kind 1 fails at step 2 and again at 4, kind 0 never; 5 steps."""
    kind = np.repeat(np.arange(40) % 2, 5)
    step = np.tile(np.arange(5), 40)
    obs = np.stack([kind, step / 4], 1).astype(np.float32)
    empty = {k: np.zeros(200, np.float32) for k in ("reward", "margin", "next_margin")}
    ends = {"terminated": np.zeros(200, bool), "truncated": step == 4}
    return (
        empty
        | ends
        | {
            "obs": obs,
            "next_obs": obs,
            "action": np.zeros((200, 1), np.float32),
            "intended": np.zeros((200, 1), np.float32),
            "failure": (kind == 1) & ((step == 2) | (step == 4)),
            "episode": np.repeat(np.arange(40), 5).astype(np.int32),
        }
    )


def test_what_is_to_come_is_paid_once():
    paid, live = costs.cost_to_come(demonstrations(), 0.9)
    np.testing.assert_allclose(paid[5:10][:3], [0.81, 0.9, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(live[5:10], [True, True, True, False, False])
    assert not paid[:5].any() and live[:5].all()
    np.testing.assert_allclose(paid[live].sum(), 20 * 2.71, rtol=1e-5)


def test_the_offline_value_of_cost_is_the_discounted_risk():
    data, net = demonstrations(), Value(width=16, depth=2)
    config = ConstraintConfig(discount=0.9, fit_steps=300, fit_batch=64, fit_learning_rate=1e-2)
    normalizer = Normalizer(np.zeros(2), np.ones(2))
    fit = lambda: costs.fit_offline(
        net, {"task": data, "failure": data}, normalizer, config, jax.random.key(0)
    )
    params, error = fit()
    value = jax.jit(net.apply)(params, data["obs"][:10])
    np.testing.assert_allclose(value[:5], 0.0, atol=0.05)
    np.testing.assert_allclose(value[5:8], [0.81, 0.9, 1.0], atol=0.05)
    assert 0.0 < error < 0.1
    for first, again in zip(*(jax.tree.leaves(p) for p in (params, fit()[0])), strict=True):
        np.testing.assert_array_equal(first, again)
