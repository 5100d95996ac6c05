"""PPO-Lagrangian, P3O and CPO: PPO's update under a limit d on the failure-episode rate J_C.

- PPO-Lagrangian (Ray et al. 2019): PPO on A = (A_r - lambda A_C) / (1 + lambda), both advantages
  standardised; lambda follows the gradient of lambda (J_C - d), projected onto [0, cap].
- P3O (Zhang et al. 2022, arXiv 2205.11814): PPO's loss plus kappa times the excess over the limit
  that the clipped surrogate of the cost predicts, an exact penalty.
- CPO: see `cpo`.

All use PPO's batches, value function, epochs and minibatches, and add the cost's value function.
"""

from collections.abc import Callable
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from farl_jax.config import ConstraintConfig, FarlConfig, OnlineConfig
from farl_jax.nn.networks import GaussianPolicy, Value
from farl_jax.nn.training import Learner
from farl_jax.types import Normalizer, Params, Transition
from farl_jax.updates import cpo, ppo
from farl_jax.updates.costs import CostBatch, CostRate, make_cost_batch
from farl_jax.updates.ppo import PPOBatch, weighted_mean

Constraint = Literal["lagrangian", "p3o", "cpo"]
Batch = tuple[PPOBatch, CostBatch]


@struct.dataclass
class Costs:
    """Cost critic, cost rate and multiplier of a constrained method."""

    critic: Learner  # V_C
    rate: CostRate
    multiplier: jax.Array  # [] lambda of PPO-Lagrangian; 0 in the others


@struct.dataclass
class ConstrainedLearners:
    """Task policy and both value functions. CPO does not use its actor's optimiser."""

    actor: Learner
    critic: Learner
    costs: Costs


def ascend(multiplier: jax.Array, excess: jax.Array, config: ConstraintConfig) -> jax.Array:
    """lambda <- min(cap, max(0, lambda + rate (J_C - d))): [] -> []."""
    chex.assert_rank([multiplier, excess], 0)
    return jnp.clip(multiplier + config.multiplier_rate * excess, 0.0, config.multiplier_cap)


def centered_cost(batch: PPOBatch, cost: CostBatch) -> jax.Array:
    """A_C minus its mean over the live weighted rows, 0 on the others: [B]."""
    chex.assert_equal_shape([batch.weight, cost.advantage, cost.live])
    return cost.live * (cost.advantage - weighted_mean(cost.advantage, batch.weight * cost.live))


def lagrangian_loss(
    policy: GaussianPolicy, params: Params, data: Batch, multiplier: jax.Array, config: OnlineConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """PPO's loss on (A_r - lambda A_C) / (1 + lambda), both standardised over their own rows.

    So lambda weighs two gradients of similar size, for any scale of the reward and any rate of
    failures.
    """
    batch, cost = data
    chex.assert_rank([batch.advantage, multiplier], [1, 0])
    chex.assert_equal_shape([batch.advantage, batch.weight, cost.advantage, cost.live])
    log_ratio, log_std = ppo.likelihood(policy, params, batch, config)
    gain = ppo.standardize(batch.advantage, batch.weight)
    price = cost.live * ppo.standardize(cost.advantage, batch.weight * cost.live)
    gain = (gain - multiplier * price) / (1.0 + multiplier)
    surrogate = weighted_mean(ppo.clipped_surrogate(log_ratio, gain, config.clip), batch.weight)
    metrics = ppo.departure(log_ratio, log_std, batch) | {"multiplier": multiplier}
    return -surrogate - config.entropy * metrics["entropy"], metrics


def p3o_loss(
    policy: GaussianPolicy,
    params: Params,
    data: Batch,
    excess: jax.Array,
    config: OnlineConfig,
    penalty: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """PPO's loss plus kappa max(0, E[max(r A_C, clip(r) A_C)] + excess).

    `excess` [] is J_C - d in cost per step. A_C is centred, not scaled: it is in units of cost.
    The metric `multiplier` is kappa if the penalty is active, else 0.
    """
    batch, cost = data
    chex.assert_rank([batch.advantage, excess], [1, 0])
    chex.assert_equal_shape([batch.advantage, batch.weight, cost.advantage, cost.live])
    log_ratio, log_std = ppo.likelihood(policy, params, batch, config)
    gain = ppo.standardize(batch.advantage, batch.weight)
    surrogate = weighted_mean(ppo.clipped_surrogate(log_ratio, gain, config.clip), batch.weight)
    saved = ppo.clipped_surrogate(log_ratio, -centered_cost(batch, cost), config.clip)
    over = excess - weighted_mean(saved, batch.weight)
    metrics = ppo.departure(log_ratio, log_std, batch)
    metrics |= {"multiplier": jnp.where(over > 0.0, penalty, 0.0)}
    loss = -surrogate - config.entropy * metrics["entropy"]
    return loss + penalty * jax.nn.relu(over), metrics


def make_update(
    policy: GaussianPolicy, value_net: Value, config: FarlConfig, constraint: Constraint
) -> tuple[Callable[..., ConstrainedLearners], Callable[..., Any]]:
    """Build `init(policy, value, cost value params)` and `update` as in `ppo.make_update`.

    During `warmup` policy and multiplier stay fixed. J_C is counted and both values learn.
    """
    online, limits = config.online, config.constraint
    actor_optimizer = ppo.adam(online.actor_learning_rate, online.max_grad_norm)
    critic_optimizer = ppo.adam(online.critic_learning_rate, online.max_grad_norm)
    fit_values = _make_fit_values(value_net, critic_optimizer)
    if constraint == "cpo":
        improve = _by_trust_region(policy, fit_values, config)
    else:
        loss = _make_loss(policy, constraint, config)
        improve = _by_gradient(loss, (actor_optimizer, fit_values, online))

    def init(actor: Params, critic: Params, cost_value: Params) -> ConstrainedLearners:
        value, cost = (Learner.create(p, critic_optimizer) for p in (critic, cost_value))
        costs = Costs(cost, CostRate.create(), jnp.zeros(()))
        return ConstrainedLearners(Learner.create(actor, actor_optimizer), value, costs)

    def update(
        learners: ConstrainedLearners,
        normalizer: Normalizer,
        steps: Transition,
        key: jax.Array,
        warmup: jax.Array | bool = False,
    ):
        costs = learners.costs
        rate = costs.rate.add(steps, limits.window)
        excess = rate.estimate(limits.limit) - limits.limit
        multiplier = costs.multiplier
        if constraint == "lagrangian":
            multiplier = jnp.where(warmup, multiplier, ascend(multiplier, excess, limits))
        data = (
            ppo.make_batch(value_net, learners.critic.params, normalizer, steps, online),
            make_cost_batch(value_net, costs.critic.params, normalizer, steps, limits),
        )
        learners = learners.replace(costs=costs.replace(rate=rate, multiplier=multiplier))
        per_step = (1.0 - limits.discount) * excess
        learners, metrics = improve(learners, data, per_step, key, jnp.asarray(warmup))
        return learners, metrics | {"cost_rate": excess + limits.limit}

    return init, update


def _make_fit_values(value_net: Value, optimizer: optax.GradientTransformation) -> Any:
    """Build (learners, minibatch) -> (learners, metrics): one step of V and one of V_C."""

    def fit_values(learners: ConstrainedLearners, data: Batch):
        (batch, cost), costs = data, learners.costs
        everywhere = ppo.average_over(batch.counted)
        critic, loss = ppo.fit_value(
            value_net, learners.critic, optimizer, batch.obs, batch.value_target, everywhere
        )
        live_mean = lambda error: weighted_mean(error, cost.live)
        cost_critic, cost_loss = ppo.fit_value(
            value_net, costs.critic, optimizer, batch.obs, cost.value_target, live_mean
        )
        learners = learners.replace(critic=critic, costs=costs.replace(critic=cost_critic))
        return learners, {"value_loss": loss, "cost_value_loss": cost_loss}

    return fit_values


def _make_loss(policy: GaussianPolicy, constraint: Constraint, config: FarlConfig) -> Any:
    """`loss(params, minibatch, multiplier, excess)` of PPO-Lagrangian or P3O."""
    online, penalty = config.online, config.constraint.penalty
    if constraint == "lagrangian":
        return lambda params, data, multiplier, excess: lagrangian_loss(
            policy, params, data, multiplier, online
        )
    return lambda params, data, multiplier, excess: p3o_loss(
        policy, params, data, excess, online, penalty
    )


def _by_gradient(loss: Callable[..., Any], pieces: tuple[Any, Any, OnlineConfig]) -> Any:
    """PPO's minibatches with `loss(params, minibatch, multiplier, excess)`."""
    optimizer, fit_values, config = pieces

    def improve(learners, data, excess, key, warmup):
        multiplier = learners.costs.multiplier

        def step(carry: tuple[ConstrainedLearners, jax.Array], minibatch: Batch):
            learners, stopped = carry
            here = lambda params: loss(params, minibatch, multiplier, excess)
            actor, stopped, metrics = ppo.descend(
                learners.actor, here, optimizer, stopped, config.target_kl
            )
            learners, fitted = fit_values(learners.replace(actor=actor), minibatch)
            metrics |= fitted | {"stopped": stopped.astype(jnp.float32)}
            return (learners, stopped), metrics

        (learners, _), metrics = ppo.scan_minibatches(step, (learners, warmup), data, key, config)
        first = metrics["ratio_error"][0, 0]
        return learners, jax.tree.map(jnp.mean, metrics) | {"first_ratio_error": first}

    return improve


def _by_trust_region(policy: GaussianPolicy, fit_values: Any, config: FarlConfig) -> Any:
    """One step of CPO on all steps, then the values' minibatches."""

    def improve(learners, data, excess, key, warmup):
        batch, cost = data
        gains = ppo.standardize(batch.advantage, batch.weight), centered_cost(batch, cost)
        actor = learners.actor
        params, metrics = cpo.improve(
            policy, actor.params, batch, gains, excess, config.online, config.constraint
        )
        keep = lambda new, old: jnp.where(warmup, old, new)
        actor = actor.replace(params=jax.tree.map(keep, params, actor.params))
        learners = learners.replace(actor=actor)
        learners, fitted = ppo.scan_minibatches(fit_values, learners, data, key, config.online)
        metrics |= jax.tree.map(jnp.mean, fitted) | {
            "first_ratio_error": metrics["ratio_error"],
            "stopped": jnp.where(warmup, 1.0, metrics["stopped"]),
        }
        return learners, metrics

    return improve
