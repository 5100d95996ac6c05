"""PPO: the clipped objective, its batches and the online update."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from farl_jax import devices
from farl_jax.config import OnlineConfig
from farl_jax.config_online import Treatment
from farl_jax.nn import distributions
from farl_jax.nn.networks import GaussianPolicy, Value
from farl_jax.nn.training import Learner
from farl_jax.types import Normalizer, Params, Transition
from farl_jax.updates.returns import generalized_advantage


def clipped_surrogate(log_ratio: jax.Array, advantage: jax.Array, clip: float) -> jax.Array:
    """min(r A, clip(r, 1 - clip, 1 + clip) A) with r = exp(log_ratio), to be maximised; all [B]."""
    chex.assert_rank(log_ratio, 1)
    chex.assert_equal_shape([log_ratio, advantage])
    ratio = jnp.exp(log_ratio)
    return jnp.minimum(ratio * advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantage)


@struct.dataclass
class PPOBatch:
    """Data of one update: [T, N], later flattened to [B]."""

    obs: jax.Array  # [..., D] normalised
    action: jax.Array  # [..., A] action of the policy loss
    log_prob: jax.Array  # [...] its log density at collection
    weight: jax.Array  # [...] 0 excludes the step from the policy loss
    advantage: jax.Array  # [...]
    value_target: jax.Array  # [...]
    counted: jax.Array | None = None  # [...] 0 excludes the step from the value loss; None: no step


def treat_recovered(
    steps: Transition, treatment: Treatment, log_prob_floor: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(action, log_prob, weight) of each step for the policy loss.

    `treatment` of recovered steps:
    - executed: the recovery action and its density under the task policy. Steps whose log density
      is below the floor are excluded.
    - masked: recovered steps count in GAE and value loss only.
    - relabelled: the task policy's own action, with the recovery action's outcome. This is the
      policy gradient of "environment plus gate" if the gate judged that action. It did not at steps
      that a minimum length of recoveries forces, so they count as masked.
    """
    decision = steps.decision
    chex.assert_equal_shape([decision.action, decision.task_action])
    chex.assert_equal_shape([decision.log_prob, decision.task_log_prob, decision.intervened])
    chex.assert_equal_shape([decision.intervened, decision.risky])
    if treatment == "relabelled":
        forced = decision.intervened & ~decision.risky
        return decision.task_action, decision.task_log_prob, jnp.where(forced, 0.0, 1.0)
    if treatment == "masked":
        return decision.action, decision.log_prob, jnp.where(decision.intervened, 0.0, 1.0)
    likely = ~decision.intervened | (decision.log_prob > log_prob_floor)
    return decision.action, decision.log_prob, jnp.where(likely, 1.0, 0.0)


def make_batch(
    value_net: Value,
    value: Params,
    normalizer: Normalizer,
    steps: Transition,
    config: OnlineConfig,
) -> PPOBatch:
    """A rollout [T, N] with its GAE and value targets, flattened to [T * N]."""
    obs = normalizer(steps.obs)
    now = value_net.apply(value, obs)
    following = value_net.apply(value, normalizer(steps.next_obs))
    gain = generalized_advantage(
        steps.reward * normalizer.reward,
        now,
        following,
        steps.terminated,
        steps.truncated,
        discount=config.discount,
        trace=config.trace,
    )
    action, log_prob, weight = treat_recovered(steps, config.treatment, config.log_prob_floor)
    weight = jnp.where(steps.usable, weight, 0.0)
    counted = None if steps.counted is None else steps.counted.astype(jnp.float32)
    batch = PPOBatch(obs, action, log_prob, weight, gain, gain + now, counted)
    chex.assert_equal_shape([batch.log_prob, batch.weight, batch.advantage, batch.value_target])
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """sum(w x) / max(sum(w), 1): [B] -> []. Weights are 0 or 1; 0 without any."""
    chex.assert_equal_shape([x, weight])
    return jnp.sum(weight * x) / jnp.maximum(jnp.sum(weight), 1.0)


def average_over(counted: jax.Array | None) -> Callable[[jax.Array], jax.Array]:
    """The mean over the counted rows of a batch: [B] -> []. With None all rows count."""
    if counted is None:
        return jnp.mean
    chex.assert_rank(counted, 1)
    return lambda x: weighted_mean(x, counted)


def likelihood(
    policy: GaussianPolicy, params: Params, batch: PPOBatch, config: OnlineConfig
) -> tuple[jax.Array, jax.Array]:
    """(log ratio pi(a|s) / pi_old(a|s) [B], clipped; log standard deviations [B, A])."""
    chex.assert_rank([batch.obs, batch.action, batch.log_prob], [2, 2, 1])
    mean, log_std = policy.apply(params, batch.obs)
    log_ratio = distributions.log_prob(batch.action, mean, log_std) - batch.log_prob
    return jnp.clip(log_ratio, -config.max_log_ratio, config.max_log_ratio), log_std


def departure(log_ratio: jax.Array, log_std: jax.Array, batch: PPOBatch) -> dict[str, jax.Array]:
    """Metrics of the policy's change since collection.

    The KL estimate mean((r - 1) - log r) is non-negative and has low variance.
    """
    weight, average = batch.weight, average_over(batch.counted)
    chex.assert_rank([log_ratio, log_std], [1, 2])
    chex.assert_equal_shape([log_ratio, weight])
    return {
        "entropy": average(distributions.entropy(log_std)),
        "kl": weighted_mean(jnp.expm1(log_ratio) - log_ratio, weight),
        "ratio_error": jnp.max(jnp.where(weight > 0, jnp.abs(jnp.expm1(log_ratio)), 0.0)),
        "used": average(weight),
    }


def standardize(gain: jax.Array, weight: jax.Array) -> jax.Array:
    """(A - mean) / standard deviation over the weighted rows: [B] -> [B]."""
    chex.assert_rank(gain, 1)
    chex.assert_equal_shape([gain, weight])
    center = weighted_mean(gain, weight)
    spread = jnp.sqrt(weighted_mean((gain - center) ** 2, weight))
    return (gain - center) / (spread + 1e-8)


def policy_loss(
    policy: GaussianPolicy, params: Params, batch: PPOBatch, config: OnlineConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(-surrogate - entropy bonus over the weighted steps [], metrics)."""
    chex.assert_rank(batch.obs, 2)
    chex.assert_equal_shape([batch.advantage, batch.weight, batch.log_prob])
    log_ratio, log_std = likelihood(policy, params, batch, config)
    gain = standardize(batch.advantage, batch.weight)
    surrogate = weighted_mean(clipped_surrogate(log_ratio, gain, config.clip), batch.weight)
    metrics = departure(log_ratio, log_std, batch)
    return -surrogate - config.entropy * metrics["entropy"], metrics


@struct.dataclass
class ActorCritic:
    """Task policy and value function with their optimisers."""

    actor: Learner
    critic: Learner


def descend(
    learner: Learner,
    loss: Callable[[Params], tuple[jax.Array, dict[str, jax.Array]]],
    optimizer: optax.GradientTransformation,
    stopped: jax.Array,
    target_kl: float,
) -> tuple[Learner, jax.Array, dict[str, jax.Array]]:
    """One step of the policy, unless `stopped` [] bool or this minibatch's KL is too large."""
    chex.assert_rank(stopped, 0)

    def rest() -> tuple[Learner, jax.Array, dict[str, jax.Array]]:
        return learner, stopped, loss(learner.params)[1]

    def move() -> tuple[Learner, jax.Array, dict[str, jax.Array]]:
        (_, metrics), gradient = jax.value_and_grad(loss, has_aux=True)(learner.params)
        stops = metrics["kl"] > target_kl
        moved = learner.apply_gradient(gradient, optimizer)
        kept = jax.tree.map(lambda new, old: jnp.where(stops, old, new), moved, learner)
        return kept, stops, metrics

    return jax.lax.cond(stopped, rest, move)


def fit_value(
    net: Value,
    learner: Learner,
    optimizer: optax.GradientTransformation,
    obs: jax.Array,
    target: jax.Array,
    average: Callable[[jax.Array], jax.Array] = jnp.mean,
) -> tuple[Learner, jax.Array]:
    """(value function after one step on its squared error, that error's average [])."""
    chex.assert_rank([obs, target], [2, 1])
    chex.assert_equal_shape_prefix([obs, target], 1)
    loss_of = lambda params: average((net.apply(params, obs) - target) ** 2)
    loss, gradient = jax.value_and_grad(loss_of)(learner.params)
    return learner.apply_gradient(gradient, optimizer), loss


def scan_minibatches(
    step: Callable[[Any, Any], tuple[Any, Any]],
    carry: Any,
    batch: Any,
    key: jax.Array,
    config: OnlineConfig,
) -> tuple[Any, Any]:
    """Run `step(carry, minibatch) -> (carry, metrics)` on shuffled minibatches of a batch [B, ...].

    Metrics are [epochs, minibatches]. Each epoch leaves out the rows that fill no whole minibatch.
    """
    size = jax.tree.leaves(batch)[0].shape[0]
    minibatch = size // config.minibatches

    def epoch(carry: Any, key_epoch: jax.Array):
        order = jax.random.permutation(key_epoch, size)[: minibatch * config.minibatches]
        shuffled = jax.tree.map(
            lambda x: x[order].reshape(config.minibatches, minibatch, *x.shape[1:]), batch
        )
        return jax.lax.scan(step, carry, devices.spread(shuffled, axis=1))

    return jax.lax.scan(epoch, carry, jax.random.split(key, config.epochs))


class Parts(NamedTuple):
    """The online update in parts. Actor and critic need nothing of each other: run them at once."""

    init: Callable[[Params, Params], ActorCritic]
    """(policy params, value params) -> learners."""
    prepare: Callable[[Params, Normalizer, Transition], PPOBatch]
    """(value params, normalizer, rollout [T, N]) -> batch [T * N]."""
    actor: Callable[..., tuple[Learner, dict[str, jax.Array]]]
    """(actor, batch, key, warmup [] bool) -> (actor, metrics)."""
    critic: Callable[..., tuple[Learner, dict[str, jax.Array]]]
    """(critic, batch, key) -> (critic, metrics)."""


def make_parts(policy: GaussianPolicy, value_net: Value, config: OnlineConfig) -> Parts:
    """Build the parts; both learners see the same minibatches where they get the same key.

    Once a minibatch's KL passes `target_kl`, the actor rests for the remainder of the update.
    During `warmup` it rests throughout.
    """
    actor_optimizer = adam(config.actor_learning_rate, config.max_grad_norm)
    critic_optimizer = adam(config.critic_learning_rate, config.max_grad_norm)

    def init(actor: Params, critic: Params) -> ActorCritic:
        return ActorCritic(
            Learner.create(actor, actor_optimizer), Learner.create(critic, critic_optimizer)
        )

    def prepare(value: Params, normalizer: Normalizer, steps: Transition) -> PPOBatch:
        return make_batch(value_net, value, normalizer, steps, config)

    def actor_step(carry: tuple[Learner, jax.Array], batch: PPOBatch):
        actor, stopped = carry
        loss = lambda params: policy_loss(policy, params, batch, config)
        actor, stopped, metrics = descend(actor, loss, actor_optimizer, stopped, config.target_kl)
        return (actor, stopped), metrics | {"stopped": stopped.astype(jnp.float32)}

    def actor(learner: Learner, batch: PPOBatch, key: jax.Array, warmup: jax.Array):
        (learner, _), metrics = scan_minibatches(actor_step, (learner, warmup), batch, key, config)
        first = metrics["ratio_error"][0, 0]  # 0 unless collection and update disagree
        return learner, jax.tree.map(jnp.mean, metrics) | {"first_ratio_error": first}

    def critic_step(learner: Learner, rows: tuple[jax.Array, jax.Array, jax.Array | None]):
        obs, target, counted = rows
        return fit_value(value_net, learner, critic_optimizer, obs, target, average_over(counted))

    def critic(learner: Learner, batch: PPOBatch, key: jax.Array):
        rows = (batch.obs, batch.value_target, batch.counted)
        learner, losses = scan_minibatches(critic_step, learner, rows, key, config)
        return learner, {"value_loss": losses.mean()}

    return Parts(init, prepare, actor, critic)


def make_update(
    policy: GaussianPolicy, value_net: Value, config: OnlineConfig
) -> tuple[Callable[[Params, Params], ActorCritic], Callable[..., tuple[ActorCritic, dict]]]:
    """Build `init(policy, value params)` and `update(learners, normalizer, steps, key, warmup)`.

    `update` takes a rollout [T, N] and runs the epochs of minibatches (`make_parts`).
    """
    parts = make_parts(policy, value_net, config)

    def update(
        learners: ActorCritic,
        normalizer: Normalizer,
        steps: Transition,
        key: jax.Array,
        warmup: jax.Array | bool = False,
    ):
        batch = parts.prepare(learners.critic.params, normalizer, steps)
        actor, metrics = parts.actor(learners.actor, batch, key, jnp.asarray(warmup))
        critic, more = parts.critic(learners.critic, batch, key)
        return ActorCritic(actor, critic), metrics | more

    return parts.init, update


def adam(learning_rate: float, max_grad_norm: float) -> optax.GradientTransformation:
    """The optimiser of the online phase: Adam with gradient clipping by global norm."""
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adam(learning_rate, eps=1e-5)
    )
