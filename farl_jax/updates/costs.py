"""The cost of failures: its value function V_C, its advantages A_C, and the rate J_C.

The first failing step of an episode costs 1, all others 0. So J_C, the expected cost of an episode,
is the failure-episode rate. A failure does not end its episode, but there is no cost after it, so
V_C is set to 0 there.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from farl_jax.config import ConstraintConfig
from farl_jax.data import dataset
from farl_jax.data.dataset import Dataset, DeviceData
from farl_jax.nn.networks import Value
from farl_jax.nn.training import Learner, scan_updates
from farl_jax.types import Normalizer, Params, Transition
from farl_jax.updates.ppo import fit_value
from farl_jax.updates.returns import generalized_advantage


@struct.dataclass
class CostBatch:
    """Costs of one update's steps, [T, N] or flattened to [B]."""

    advantage: jax.Array  # [...] A_C, 0 after the episode's first failure
    value_target: jax.Array  # [...]
    live: jax.Array  # [...] 1 until the episode's first failure, which is included, then 0; counted


def make_cost_batch(
    value_net: Value,
    value: Params,
    normalizer: Normalizer,
    steps: Transition,
    config: ConstraintConfig,
) -> CostBatch:
    """GAE of the first failure over a rollout [T, N], flattened to [T * N].

    c_t     = 1 at the first failure of the episode, else 0
    delta_t = c_t + gamma (1 - terminated_t) V_C(s'_t) - V_C(s_t),  V_C := 0 after a failure
    A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    A success ends the episode without further cost. A time-out bootstraps. After the first failure
    all deltas are 0.
    """
    chex.assert_rank([steps.obs, steps.next_obs], 3)
    chex.assert_equal_shape_prefix([steps.obs, steps.next_obs, steps.failing_steps], 2)
    chex.assert_equal_shape([steps.failing_steps, steps.failure, steps.first_failure])
    failed_before = steps.failing_steps > steps.failure
    failed_after = steps.failing_steps > 0
    now = value_net.apply(value, normalizer(steps.obs))
    following = value_net.apply(value, normalizer(steps.next_obs))
    now = jnp.where(failed_before, 0.0, now)
    gain = generalized_advantage(
        steps.first_failure.astype(jnp.float32),
        now,
        jnp.where(failed_after, 0.0, following),
        steps.terminated,
        steps.truncated,
        discount=config.discount,
        trace=config.trace,
    )
    live = ~failed_before if steps.counted is None else steps.counted & ~failed_before
    batch = CostBatch(gain, gain + now, jnp.where(live, 1.0, 0.0))
    return jax.tree.map(lambda x: x.reshape(-1), batch)


@struct.dataclass
class CostRate:
    """Estimate of J_C: the share of failure episodes among the latest episodes.

    Episodes are counted when they end. Sums above `window` episodes are scaled down to it, because
    one rollout may have few ends.
    """

    failed: jax.Array  # [] episodes with a failure
    ended: jax.Array  # [] at most `window`

    @classmethod
    def create(cls) -> "CostRate":
        """Start without any episode."""
        return cls(jnp.zeros(()), jnp.zeros(()))

    def add(self, steps: Transition, window: int) -> "CostRate":
        """Add a rollout [T, N]."""
        chex.assert_rank(steps.done, 2)
        chex.assert_equal_shape([steps.done, steps.failing_steps])
        count = lambda mask: jnp.sum(mask, where=steps.counted)
        ended = self.ended + count(steps.done)
        failed = self.failed + count(steps.done & (steps.failing_steps > 0))
        keep = jnp.minimum(1.0, window / jnp.maximum(ended, 1.0))
        return CostRate(keep * failed, keep * ended)

    def estimate(self, unknown: float) -> jax.Array:
        """J_C [], `unknown` before any episode has ended."""
        return jnp.where(self.ended > 0, self.failed / jnp.maximum(self.ended, 1.0), unknown)


def cost_to_come(data: Dataset, discount: float) -> tuple[np.ndarray, np.ndarray]:
    """(discounted cost from each step of a dataset, whether the step is live), both [M].

    The cost is gamma^k if the episode's first failure is k steps ahead, else 0. A step is live
    until the first failure, which is included.
    """
    chex.assert_rank(data["episode"], 1)
    chex.assert_equal_shape([data["episode"], data["failure"]])
    steps = np.arange(len(data["episode"]))
    never = len(steps) + 1
    number = np.unique(data["episode"], return_inverse=True)[1]
    onset = np.full(number.max() + 1, never)
    np.minimum.at(onset, number[data["failure"]], steps[data["failure"]])
    ahead = onset[number] - steps
    fails = onset[number] < never
    paid = np.where(fails, discount ** np.maximum(ahead, 0.0), 0.0)
    return paid.astype(np.float32), ~fails | (ahead >= 0)


def make_fit(
    value_net: Value, config: ConstraintConfig
) -> Callable[[jax.Array, DeviceData], tuple[Params, jax.Array]]:
    """Build `fit(key, data with obs and target) -> (V_C params, mean squared error)`."""
    optimizer = optax.adam(config.fit_learning_rate)

    def fit(key: jax.Array, data: DeviceData):
        key_init, key_fit = jax.random.split(key)

        def step(learner: Learner, key_batch: jax.Array):
            rows = data.sample(key_batch, config.fit_batch)
            return fit_value(value_net, learner, optimizer, rows["obs"], rows["target"])

        start = Learner.create(value_net.init(key_init, data.fields["obs"][:1]), optimizer)
        learner, loss = scan_updates(step, start, key_fit, config.fit_steps)
        return learner.params, loss

    return jax.jit(fit)


def fit_offline(
    value_net: Value,
    demos: dict[str, Dataset],
    normalizer: Normalizer,
    config: ConstraintConfig,
    key: jax.Array,
) -> tuple[Params, float]:
    """Fit V_C to Monte-Carlo costs of the task and failure demonstrations; (V_C, mean error).

    The demonstrations fail more often than the policy. The critics' warm-up corrects that online.
    """
    data = dataset.concatenate(demos["task"], demos["failure"])
    paid, live = cost_to_come(data, config.discount)
    rows = {
        "obs": np.asarray(normalizer(data["obs"][live])),
        "target": paid[live],
        "episode": data["episode"][live],
    }
    on_device = dataset.to_device(rows, ("obs", "target"))
    params, loss = make_fit(value_net, config)(key, on_device)
    return params, float(loss)
