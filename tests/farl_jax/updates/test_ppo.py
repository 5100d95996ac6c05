"""PPO: first ratios, treatments of recovered steps, the KL stop, offline rounds judged by OPE."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import OfflinePPOConfig, OnlineConfig
from farl_jax.data.dataset import DeviceData
from farl_jax.nn import distributions
from farl_jax.nn.networks import GaussianPolicy, Value
from farl_jax.offline.improve import make_improve_offline
from farl_jax.offline.iql import Critics
from farl_jax.types import Decision, Normalizer, Transition
from farl_jax.updates import ppo
from tests.parameters import random_parameters

T, N, D, A = 6, 4, 3, 2
POLICY = GaussianPolicy(action_size=A, width=16, depth=1, min_log_std=float(np.log(0.2)))
VALUE = Value(width=16, depth=1)
CONFIG = OnlineConfig(
    epochs=4, minibatches=3, actor_learning_rate=3e-3, target_kl=0.1, treatment="masked"
)
NORMALIZER = Normalizer(jnp.array([0.5, -1.0, 0.0]), jnp.array([2.0, 1.0, 0.5]), 0.01)
INIT, update = ppo.make_update(POLICY, VALUE, CONFIG)
UPDATE = jax.jit(update)


@pytest.fixture(scope="module")
def learners():
    obs = np.zeros((1, D))
    return INIT(random_parameters(POLICY, obs), random_parameters(VALUE, obs))


@jax.jit
def rollout(actor, intervened):
    """[T, N] steps as a gated run of this policy stores them; recovered steps execute (1, 1)."""
    keys = jax.random.split(jax.random.key(1), 4)
    obs = 2.0 * jax.random.normal(keys[0], (T + 1, N, D))
    mean, log_std = POLICY.apply(actor, NORMALIZER(obs[:-1]))
    wanted = distributions.sample(keys[1], mean, log_std)
    action = jnp.where(intervened[..., None], 1.0, wanted)
    none = jnp.zeros((T, N), bool)
    number = jnp.zeros((T, N))
    return Transition(
        obs=obs[:-1],
        decision=Decision(
            action=action,
            log_prob=distributions.log_prob(action, mean, log_std),
            task_action=wanted,
            task_log_prob=distributions.log_prob(wanted, mean, log_std),
            intervened=intervened,
            risky=intervened,
            risk=number,
            alarm=number.astype(int),
            control=none,
        ),
        reward=100.0 * jax.random.normal(keys[2], (T, N)),
        failure=none,
        first_failure=none,
        success=none,
        terminated=jax.random.bernoulli(keys[3], 0.1, (T, N)),
        truncated=none,
        diverged=none,
        next_obs=obs[1:],
        margin=number,
        next_margin=number,
        episode_return=number,
        failing_steps=number,
        step_count=number,
    )


NOBODY = np.zeros((T, N), bool)
AT_START = NOBODY.copy()
AT_START[0] = True  # the first steps: nothing before them inherits their advantage


def same(left, right):
    return all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    )


def run(learners, steps):
    return UPDATE(learners, NORMALIZER, steps, jax.random.key(2))


# ---- the update


def test_the_first_ratio_after_loading_a_policy_is_one(learners):
    new, metrics = run(learners, rollout(learners.actor.params, NOBODY))
    assert metrics["first_ratio_error"] <= 1e-6
    assert metrics["ratio_error"] > 1e-3  # later minibatches meet a policy that has moved
    assert not same(new.actor.params, learners.actor.params)


def test_every_first_ratio_is_one_not_only_the_largest(learners):
    steps = rollout(learners.actor.params, AT_START)
    batch = ppo.make_batch(VALUE, learners.critic.params, NORMALIZER, steps, CONFIG)
    log_prob = distributions.log_prob(batch.action, *POLICY.apply(learners.actor.params, batch.obs))
    np.testing.assert_allclose(np.exp(log_prob - batch.log_prob), 1.0, atol=2e-6)


def test_another_policys_rollout_is_noticed(learners):
    other = jax.tree.map(lambda x: x * 1.5 + 0.1, learners.actor.params)
    _, metrics = run(learners, rollout(other, NOBODY))
    assert metrics["first_ratio_error"] > 1e-2


def test_masked_steps_teach_the_value_but_not_the_policy(learners):
    steps = rollout(learners.actor.params, AT_START)
    richer = steps.replace(reward=steps.reward + 500.0 * AT_START)
    (base, _), (changed, _) = run(learners, steps), run(learners, richer)
    assert same(base.actor, changed.actor)
    assert not same(base.critic.params, changed.critic.params)
    free = rollout(learners.actor.params, NOBODY)
    changed, _ = run(learners, free.replace(reward=free.reward + 500.0 * AT_START))
    assert not same(run(learners, free)[0].actor, changed.actor)  # unmasked they do


def test_forced_steps_of_a_recovery_weigh_nothing_where_recovered_steps_are_relabelled(learners):
    """At (0, 0) the gate asked for recovery, at (1, 0) it only went on; (2, 0) was let through."""
    acts, risky = NOBODY.copy(), NOBODY.copy()
    acts[:2, 0], risky[0, 0], risky[2, 0] = True, True, True
    steps = rollout(learners.actor.params, acts)
    steps = steps.replace(decision=steps.decision.replace(risky=risky))
    action, _, weight = ppo.treat_recovered(steps, "relabelled", -10.0)
    np.testing.assert_array_equal(action, steps.decision.task_action)
    assert float(weight[1, 0]) == 0.0 and float(weight.sum()) == T * N - 1
    _, _, weight = ppo.treat_recovered(steps, "masked", -10.0)
    assert float(weight.sum()) == T * N - 2
    relabelling = dataclasses.replace(CONFIG, treatment="relabelled")
    batch = ppo.make_batch(VALUE, learners.critic.params, NORMALIZER, steps, relabelling)
    assert float(batch.weight.reshape(T, N)[1, 0]) == 0.0


def test_masked_share_is_reported(learners):
    _, metrics = run(learners, rollout(learners.actor.params, AT_START))
    np.testing.assert_allclose(metrics["used"], 1 - 1 / T, rtol=1e-6)


def test_the_kl_stop_freezes_the_actor_for_the_whole_update(learners):
    steps = rollout(learners.actor.params, NOBODY)
    far = steps.replace(
        decision=steps.decision.replace(log_prob=steps.decision.log_prob - 1.0)
    )  # every ratio is e: KL estimate e - 2 from the first minibatch on
    new, metrics = run(learners, far)
    assert metrics["stopped"] == 1.0
    np.testing.assert_allclose(metrics["kl"], np.e - 2, rtol=1e-4)
    assert same(new.actor, learners.actor)  # optimiser state included
    assert not same(new.critic.params, learners.critic.params)


def test_after_the_stop_no_step_is_taken_even_where_kl_is_small_again(learners):
    new, metrics = run(learners, rollout(learners.actor.params, NOBODY))
    total = CONFIG.epochs * CONFIG.minibatches
    taken = int(new.actor.opt_state[1][0].count)
    assert 1 < taken < total  # this learning rate passes the target half-way
    np.testing.assert_allclose(metrics["stopped"], 1 - taken / total, atol=1e-6)
    assert int(new.critic.opt_state[1][0].count) == total


# ---- what the policy loss sees


class Fixed:
    """A network whose output is its parameters, on every row."""

    @staticmethod
    def apply(params, obs):
        return tuple(jnp.broadcast_to(p, (*obs.shape[:-1], A)) for p in params)


class SumValue:
    """V(s) = parameter x sum of the observation."""

    @staticmethod
    def apply(params, obs):
        return params * obs.sum(-1)


def decided(intervened, log_prob):
    shape = (len(log_prob), 1)
    column = lambda x: jnp.asarray(x).reshape(shape)
    return types.SimpleNamespace(
        decision=Decision(
            action=jnp.full((*shape, A), 1.0),
            log_prob=column(log_prob),
            task_action=jnp.full((*shape, A), 2.0),
            task_log_prob=column([-0.5] * len(log_prob)),
            intervened=column(intervened),
            risky=column(intervened),
            risk=jnp.zeros(shape),
            alarm=jnp.zeros(shape, int),
            control=jnp.zeros(shape, bool),
        )
    )


@pytest.mark.parametrize(
    ("treatment", "action", "log_prob", "weight"),
    [
        ("executed", 1.0, [-1.0, -9.9, -10.1, -50.0], [1, 1, 0, 1]),
        ("masked", 1.0, [-1.0, -9.9, -10.1, -50.0], [1, 0, 0, 1]),
        ("relabelled", 2.0, [-0.5] * 4, [1, 1, 1, 1]),
    ],
)
def test_treatments_by_hand(treatment, action, log_prob, weight):
    """The floor holds for recovered actions alone: the policy's own rare sample (-50) stays."""
    steps = decided([False, True, True, False], [-1.0, -9.9, -10.1, -50.0])
    got = ppo.treat_recovered(steps, treatment, -10.0)
    np.testing.assert_array_equal(got[0], np.full((4, 1, A), action))
    np.testing.assert_allclose(got[1][:, 0], log_prob)
    np.testing.assert_array_equal(got[2][:, 0], weight)


def test_flattening_keeps_the_rows_of_all_fields_together(learners):
    steps = rollout(learners.actor.params, AT_START)
    steps = steps.replace(obs=jnp.arange(T * N, dtype=jnp.float32).reshape(T, N, 1) * jnp.ones(D))
    decision = steps.decision.replace(action=steps.obs[..., :A] * 3, log_prob=-steps.obs[..., 0])
    steps = steps.replace(decision=decision, reward=steps.obs[..., 0] * 100, next_obs=steps.obs)
    config = dataclasses.replace(CONFIG, discount=0.0, treatment="masked")
    identity = Normalizer(jnp.zeros(D), jnp.ones(D), 0.01)
    batch = ppo.make_batch(SumValue, jnp.asarray(2.0), identity, steps, config)
    number = np.arange(T * N)
    assert batch.obs.shape == (T * N, D) and batch.action.shape == (T * N, A)
    np.testing.assert_array_equal(batch.obs[:, 0], number)
    np.testing.assert_array_equal(batch.action[:, 1], 3 * number)
    np.testing.assert_array_equal(batch.log_prob, -number)
    np.testing.assert_array_equal(batch.weight, ~AT_START.reshape(-1))
    # no discount: advantage = reward x .01 - V, and the target is the scaled reward
    np.testing.assert_allclose(batch.value_target, number, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(batch.advantage, number - 6 * number, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("treatment", ["executed", "masked", "relabelled"])
def test_diverged_steps_have_no_weight(learners, treatment):
    steps = rollout(learners.actor.params, NOBODY)
    steps = steps.replace(diverged=jnp.asarray(AT_START))
    config = dataclasses.replace(CONFIG, treatment=treatment)
    batch = ppo.make_batch(SumValue, jnp.asarray(0.0), NORMALIZER, steps, config)
    np.testing.assert_array_equal(batch.weight, ~AT_START.reshape(-1))


def batch_of(log_ratio, advantage, weight, params):
    """Rows whose log ratio under `params` is the given one."""
    rows = len(log_ratio)
    action = jnp.linspace(-1, 1, rows)[:, None] * jnp.ones(A)
    log_prob = distributions.log_prob(action, *Fixed.apply(params, action)) - jnp.asarray(log_ratio)
    numbers = (log_prob, jnp.asarray(weight), jnp.asarray(advantage), jnp.zeros(rows))
    return ppo.PPOBatch(jnp.zeros((rows, D)), action, *numbers)


PARAMS = (jnp.array([0.1, -0.2]), jnp.array([-0.5, -0.3]))


def test_policy_loss_by_hand():
    """Three used rows with advantages 1, 4, 7, normalised to -a, 0, a with a = sqrt(3/2)."""
    ratio = np.array([1.5, 0.9, 1.5, 1.0])
    batch = batch_of(np.log(ratio), [1.0, 4.0, 7.0, 1e6], [1.0, 1.0, 1.0, 0.0], PARAMS)
    config = OnlineConfig(clip=0.2, entropy=0.5)
    loss, metrics = ppo.policy_loss(Fixed, PARAMS, batch, config)
    a = np.sqrt(1.5)
    surrogate = (-1.5 * a + 0.0 + 1.2 * a) / 3  # pessimistic: only the gain is clipped
    entropy = -0.8 + np.log(2 * np.pi * np.e)
    np.testing.assert_allclose(loss, -surrogate - 0.5 * entropy, rtol=1e-4)
    kl = np.mean(ratio[:3] - 1 - np.log(ratio[:3]))
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-4)
    np.testing.assert_allclose(metrics["ratio_error"], 0.5, rtol=1e-5)
    np.testing.assert_allclose(metrics["used"], 0.75)


def test_rows_without_weight_give_no_gradient():
    loss = lambda p, batch: ppo.policy_loss(Fixed, p, batch, OnlineConfig())[0]
    slope = jax.jit(jax.grad(loss))
    gradient = lambda batch: slope(PARAMS, batch)
    advantage, weight = [1.0, -2.0, 5.0], [1.0, 1.0, 0.0]
    base = batch_of([0.0, 0.1, 0.0], advantage, weight, PARAMS)
    moved = base.replace(
        action=base.action.at[2].set(7.0), advantage=base.advantage.at[2].set(-90.0)
    )
    assert same(gradient(base), gradient(moved))
    assert np.abs(gradient(base)[0]).max() > 1e-3
    none = base.replace(weight=jnp.zeros(3))
    assert all((leaf == 0).all() for leaf in gradient(none))


def test_the_log_ratio_is_clipped_both_ways_and_passes_no_gradient_there():
    config = OnlineConfig(max_log_ratio=2.0)
    batch = batch_of([5.0, -5.0], [-1.0, 1.0], [1.0, 1.0], PARAMS)
    loss = lambda p: ppo.policy_loss(Fixed, p, batch, config)
    (value, metrics), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(PARAMS)
    np.testing.assert_allclose(value, (np.exp(2.0) - np.exp(-2.0)) / 2, rtol=1e-4)
    np.testing.assert_allclose(metrics["ratio_error"], np.exp(2.0) - 1.0, rtol=1e-4)
    assert all((leaf == 0).all() for leaf in gradient)


def test_clipped_surrogate_table(no_rank_promotion):
    log_ratio = jnp.log(jnp.array([1.5, 0.5, 1.5, 0.5, 1.1]))
    gain = jnp.array([1.0, 1.0, -1.0, -1.0, 2.0])
    got = ppo.clipped_surrogate(log_ratio, gain, 0.2)
    np.testing.assert_allclose(got, [1.2, 0.5, -1.5, -0.8, 2.2], rtol=1e-5)


# ---- offline improvement, with known critic and dynamics


class Critic:
    """Q1 = 3 a - s, Q2 = Q1 + 1: acting more always looks better at once."""

    @staticmethod
    def apply(params, obs, action):
        q = params * action.sum(-1) - obs[..., 0]
        return jnp.stack([q, q + 1.0])


class Zero:
    @staticmethod
    def apply(params, obs):
        return jnp.zeros(obs.shape[:-1])


class Drift:
    """s' = s + e a: with e large, whoever acts more pays later."""

    @staticmethod
    def apply(params, obs, action):
        return obs + params * action.sum(-1, keepdims=True)


@pytest.fixture(scope="module")
def improve():
    config = OfflinePPOConfig(
        rounds=3, steps_per_round=10, batch=64, learning_rate=3e-3, start_states=32
    )
    obs = np.random.default_rng(0).normal(size=(1024, D)).astype(np.float32)
    data = DeviceData({"obs": jnp.asarray(obs)}, jnp.asarray(1024))
    drawn = [random_parameters(POLICY, obs[:1], seed=seed) for seed in range(3)]
    members = jax.tree.map(lambda *leaves: 0.1 * np.stack(leaves), *drawn)
    members["params"]["MLP_0"]["Dense_1"]["bias"][:, :A] += np.array([[0.2], [-0.3], [0.0]])
    run = make_improve_offline((POLICY, Zero, Critic, Drift), config)
    critics = Critics(value=jnp.zeros(()), critic=jnp.asarray(3.0))
    go = lambda drift: run(jax.random.key(5), members, critics, jnp.full(2, drift), data)
    action = jax.jit(lambda params: POLICY.apply(params, obs)[0].sum(-1).mean())
    return members, go, action


def member(members, i):
    return jax.tree.map(lambda leaf: leaf[i], members)


def test_an_incumbent_that_ope_prefers_is_returned_untouched(improve):
    members, go, action = improve
    best, metrics = go(10.0)
    assert metrics["accepted"] == 0
    assert same(best, member(members, metrics["member"]))
    assert metrics["member"] == 1  # the best score: its actions drift least
    assert action(best) < -0.3


def test_accepted_rounds_change_the_policy_the_way_the_critic_wants(improve):
    members, go, action = improve
    best, metrics = go(0.0)
    assert metrics["member"] == 0 and 1 <= metrics["accepted"] <= 3
    assert action(best) > action(member(members, 0)) + 0.05
