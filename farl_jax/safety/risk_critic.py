"""Recovery RL's risk critic (Thananjeyan et al. 2021), a gate without a world model.

    Q_risk(s, a) = c + (1 - c) gamma_risk E[Q_risk(s', a')],   a' ~ the task policy at s'

The factor (1 - c) is explicit because a failure need not end the episode here, as it does in
Recovery RL. There is no bootstrap after a success; there is one after a time-out. Targets and gate
take the larger of two critics with a sigmoid each. The loss is cross entropy: it has the same
minimum as Recovery RL's squared error, but keeps its gradient where a sigmoid saturates. As in
Recovery RL the share of failing steps in a batch is fixed, and the critic also learns online.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from farl_jax.config import RiskCriticConfig
from farl_jax.data import dataset
from farl_jax.data.dataset import Dataset, DeviceData, normalize_rows, to_device
from farl_jax.data.ring import Ring, create_ring, draw, store
from farl_jax.nn import distributions
from farl_jax.nn.networks import DoubleCritic, GaussianPolicy
from farl_jax.nn.training import Learner, OnlineLearning, polyak
from farl_jax.safety.gate import Judgement, Risk
from farl_jax.types import Normalizer, Params, Transition
from farl_jax.world_model.adaptation import window_fields
from farl_jax.world_model.latent import RISK_START
from farl_jax.world_model.learning import risk_target

FIELDS = ("obs", "action", "next_obs", "failure", "terminated")
Batch = dict[str, jax.Array]
"""FIELDS -> [B, ...], observations normalised."""


@struct.dataclass
class RiskData:
    """Safe and failing transitions. If one kind is missing, the other replaces it."""

    safe: DeviceData
    failing: DeviceData


@struct.dataclass
class RiskState:
    """Critic, optimiser and target critic during learning."""

    learner: Learner
    target: Params


@struct.dataclass
class RiskLearning:
    """The learning critic and the latest steps of the run."""

    critic: RiskState
    safe: Ring  # windows of 1 step
    failing: Ring

    @property
    def learnt(self) -> dict[str, Params]:
        """The fields of `Agent` that it changes."""
        return {"risk_critic": self.critic.learner.params}


def predict_risk(
    critic: DoubleCritic, params: Params, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """max_k sigmoid(Q_k(s, a)): normalised [..., D], [..., A] -> [...]."""
    chex.assert_equal_rank([obs, action])
    chex.assert_equal_shape_prefix([obs, action], obs.ndim - 1)
    return jax.nn.sigmoid(_logits(critic, params, obs, jnp.clip(action, -1.0, 1.0)).max(axis=0))


def _logits(critic: DoubleCritic, params: Params, obs: jax.Array, action: jax.Array) -> jax.Array:
    """Logits of both critics, [2, ...]."""
    return critic.apply(params, obs, action) + RISK_START


def make_critic_risk(critic: DoubleCritic, params: Params) -> Risk:
    """Build the risk Q_risk of the gate."""
    return lambda obs, action: Judgement(predict_risk(critic, params, obs, action))


def to_risk_data(data: Dataset) -> RiskData:
    """Put transitions on the device, safe and failing ones apart. Observations are normalised."""
    failing = np.asarray(data["failure"], bool)
    chex.assert_rank(failing, 1)

    def device(mask: np.ndarray) -> DeviceData:
        mask = mask if mask.any() else ~mask
        names = (*FIELDS, "episode")
        return to_device({k: data[k][mask] for k in names}, FIELDS)

    return RiskData(safe=device(~failing), failing=device(failing))


def demo_batch(data: RiskData, key: jax.Array, batch: int, share: float) -> Batch:
    """`batch` transitions; the first `share` of them are failing steps."""
    key_safe, key_failing = jax.random.split(key)
    positives = round(share * batch)
    failing = data.failing.sample(key_failing, positives)
    safe = data.safe.sample(key_safe, batch - positives)
    return {k: jnp.concatenate([failing[k], safe[k]]) for k in FIELDS}


def mixed_batch(
    learning: RiskLearning, key: jax.Array, demos: RiskData, config: RiskCriticConfig
) -> Batch:
    """A batch: half from the run, half from demonstrations, each with `failure_share`.

    Demonstrations replace a kind of steps that the run has not seen yet.
    """
    key_demos, key_stand_in, key_safe, key_failing = jax.random.split(key, 4)
    half, share = config.batch // 2, config.failure_share
    stand_in = demo_batch(demos, key_stand_in, half, share)
    positives = round(share * half)

    def own(ring: Ring, key: jax.Array, rows: slice, number: int) -> Batch:
        drawn = draw(ring, key, number)
        seen = ring.stored > 0
        return {k: jnp.where(seen, drawn[k][0], stand_in[k][rows]) for k in FIELDS}

    parts = (
        own(learning.failing, key_failing, slice(None, positives), positives),
        own(learning.safe, key_safe, slice(positives, None), half - positives),
        demo_batch(demos, key_demos, config.batch - half, share),
    )
    return {k: jnp.concatenate([part[k] for part in parts]) for k in FIELDS}


def make_fit(
    critic: DoubleCritic, policy: GaussianPolicy, config: RiskCriticConfig
) -> tuple[Callable[[Params], RiskState], Callable[..., tuple[RiskState, jax.Array]]]:
    """Build `start(params) -> state` and `fit(state, key, task policy, batches) -> (state, loss)`.

    `batches` are K batches, FIELDS -> [K, B, ...]. Both phases run this same program.
    """
    optimizer = optax.adam(config.learning_rate)

    def start(params: Params) -> RiskState:
        return RiskState(Learner.create(params, optimizer), jax.tree.map(jnp.copy, params))

    def update(state: RiskState, key: jax.Array, task_policy: Params, batch: Batch):
        next_action = distributions.sample(key, *policy.apply(task_policy, batch["next_obs"]))
        next_risk = predict_risk(critic, state.target, batch["next_obs"], next_action)
        target = risk_target(batch["failure"], batch["terminated"], next_risk, config.gamma_risk)

        def loss(params: Params) -> jax.Array:
            logits = _logits(critic, params, batch["obs"], batch["action"])  # [2, B]
            wanted = jnp.broadcast_to(target, logits.shape)
            return optax.sigmoid_binary_cross_entropy(logits, wanted).sum(axis=0).mean()

        value, gradient = jax.value_and_grad(loss)(state.learner.params)
        learner = state.learner.apply_gradient(gradient, optimizer)
        return RiskState(learner, polyak(state.target, learner.params, config.target_rate)), value

    @jax.jit
    def fit(state: RiskState, key: jax.Array, task_policy: Params, batches: Batch):
        keys = jax.random.split(key, batches["failure"].shape[0])
        step = lambda state, xs: update(state, xs[0], task_policy, xs[1])
        state, losses = jax.lax.scan(step, state, (keys, batches))
        return state, losses.mean()

    return start, fit


def make_fit_offline(
    critic: DoubleCritic, policy: GaussianPolicy, config: RiskCriticConfig
) -> Callable[..., Params]:
    """Build `run(key, task policy, data, report) -> params`: `steps` updates on demonstrations.

    `report(updates done, losses)` is called about five times.
    """
    start, fit = make_fit(critic, policy, config)
    chunks = -(-config.steps // config.chunk)

    @jax.jit
    def batches(key: jax.Array, data: RiskData) -> Batch:
        keys = jax.random.split(key, config.chunk)
        return jax.vmap(lambda k: demo_batch(data, k, config.batch, config.failure_share))(keys)

    def run(
        key: jax.Array,
        task_policy: Params,
        data: RiskData,
        report: Callable[[int, dict[str, float]], None],
    ) -> Params:
        key_init, key_fit, key_batches = jax.random.split(key, 3)
        row = {k: v[:1] for k, v in data.safe.fields.items()}
        state = start(jax.jit(critic.init)(key_init, row["obs"], row["action"]))
        for chunk in range(chunks):
            some = batches(jax.random.fold_in(key_batches, chunk), data)
            state, loss = fit(state, jax.random.fold_in(key_fit, chunk), task_policy, some)
            if (chunk + 1) % max(1, chunks // 5) == 0:
                report((chunk + 1) * config.chunk, {"loss": float(loss)})
        return state.learner.params

    return run


def make_risk_learning(
    critic: DoubleCritic,
    policy: GaussianPolicy,
    config: RiskCriticConfig,
    sizes: tuple[int, int],
) -> OnlineLearning:
    """The critic's learning online. Its state is a `RiskLearning`, its rehearsal `RiskData`.

    It runs the program of the offline fit.
    """
    start, fit = make_fit(critic, policy, config)

    def init(params: Params) -> RiskLearning:
        rings = (
            create_ring(n, 1, *sizes) for n in (config.transitions, config.failing_transitions)
        )
        return RiskLearning(start(params), *rings)

    def observe(
        learning: RiskLearning, normalizer: Normalizer, steps: Transition, key: jax.Array
    ) -> RiskLearning:
        key_safe, key_failing = jax.random.split(key)
        fields = window_fields(steps, normalizer)
        most, memory = min(config.transitions_per_rollout, steps.failure.size), config.memory
        good = steps.usable
        return learning.replace(
            safe=store(learning.safe, fields, good & ~steps.failure, key_safe, most, memory),
            failing=store(
                learning.failing, fields, good & steps.failure, key_failing, most, memory
            ),
        )

    @jax.jit
    def batches(learning: RiskLearning, key: jax.Array, demos: RiskData) -> Batch:
        keys = jax.random.split(key, config.chunk)
        return jax.vmap(lambda k: mixed_batch(learning, k, demos, config))(keys)

    def learn(
        learning: RiskLearning, key: jax.Array, demos: RiskData, policies: tuple[Params, Params]
    ) -> RiskLearning:
        key_batches, key_fit = jax.random.split(key)
        some = batches(learning, key_batches, demos)
        state, _ = fit(learning.critic, key_fit, policies[0], some)
        return learning.replace(critic=state)

    return OnlineLearning(init, observe, learn, "risk_critic")


def risk_rehearsal(demos: dict[str, Dataset], normalizer: Normalizer) -> RiskData:
    """Task and failure demonstrations, which the critic rehearses online."""
    data = dataset.concatenate(demos["task"], demos["failure"])
    return to_risk_data(normalize_rows(data, normalizer))
