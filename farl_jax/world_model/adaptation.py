"""Adaptation: the world model also learns online.

The paper freezes it after the offline phase (`every = 0`). A frozen model has seen failures of the
cloned policy only, not of the policy in training. Here the model takes more gradient steps on the
same loss every few rollouts, beside the policy's update. Half of each batch are windows of the
run's own steps. The other half are demonstrations, so that the model does not forget their
failures.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from flax import struct

from farl_jax.config import AdaptationConfig, FarlConfig, WorldModelConfig
from farl_jax.data import dataset
from farl_jax.data.dataset import Dataset, normalize_rows
from farl_jax.data.rewards import rewarded
from farl_jax.data.ring import Ring, create_ring, draw, store
from farl_jax.nn.training import OnlineLearning
from farl_jax.types import Normalizer, Params, Transition
from farl_jax.world_model import learning
from farl_jax.world_model.latent import LatentModel
from farl_jax.world_model.learning import ModelState
from farl_jax.world_model.windows import Windows, importance, sample_windows, to_windows


@struct.dataclass
class Adaptation:
    """The learning world model and its windows of the run."""

    model: ModelState
    recent: Ring  # all windows
    failing: Ring  # windows with a failure

    @property
    def learnt(self) -> dict[str, Params]:
        """The fields of `Agent` that it changes."""
        return {"world_model": self.model.learner.params}


def usable_windows(
    steps: dict[str, jax.Array], length: int, cap: int
) -> tuple[jax.Array, jax.Array]:
    """(usable, usable with a failure), both [T - L + 1, N] bool, indexed by a window's first step.

    A usable window lies inside one episode and holds no step at which the simulation diverged. By
    its first step the episode has at most `cap` failing steps. `steps` come from `seen_steps`.
    """
    chex.assert_rank(steps["done"], 2)
    chex.assert_equal_shape([steps[k] for k in ("done", "failing_steps", "unusable", "failure")])
    starts = steps["done"].shape[0] - length + 1
    inside = lambda mask, steps: jnp.stack([mask[i : i + starts] for i in range(steps)]).any(0)
    crosses = inside(steps["done"], length - 1)
    shallow = steps["failing_steps"][:starts] <= cap
    usable = shallow & ~crosses & ~inside(steps["unusable"], length)
    return usable, usable & inside(steps["failure"], length)


def mixed_batch(
    adaptation: Adaptation, key: jax.Array, rehearsal: Windows, world: WorldModelConfig
) -> dict[str, jax.Array]:
    """A batch, name -> [L, B, ...]: half windows of the run, half of demonstrations.

    In each half `failure_share` hold a failure. The run's half waits for its first failure.
    `weight` [B] undoes that: in each half windows count as often as they happen, in the run's half
    as often as they did recently.
    """
    key_demos, key_recent, key_failing = jax.random.split(key, 3)
    half = world.batch // 2
    num_failing = round(half * world.failure_share)
    demos = sample_windows(rehearsal, key_demos, world, half)
    recent = draw(adaptation.recent, key_recent, half)
    failing = draw(adaptation.failing, key_failing, num_failing)
    some = adaptation.failing.stored > 0

    def own(name: str) -> jax.Array:
        kept = recent[name]
        first = jnp.where(some, failing[name], kept[:, :num_failing])
        return jnp.concatenate([first, kept[:, num_failing:]], axis=1)

    mine = {name: own(name) for name in recent}
    rate = failing_rate(adaptation)
    share = jnp.where(some, num_failing / half, 0.0)
    weight = importance(mine["failure"].any(axis=0), rate, share)
    batch = {name: jnp.concatenate([mine[name], demos[name]], axis=1) for name in mine}
    return batch | {"weight": jnp.concatenate([weight, demos["weight"]])}


def failing_rate(adaptation: Adaptation) -> jax.Array:
    """Share of the run's recent windows that hold a failure, [] in [0, 1]."""
    seen = jnp.maximum(adaptation.recent.total, 1.0)
    return jnp.minimum(adaptation.failing.total / seen, 1.0)


def window_fields(steps: Transition, normalizer: Normalizer) -> dict[str, jax.Array]:
    """The fields of windows from a rollout, name -> [T, N, ...], scaled for the world model."""
    chex.assert_rank([steps.obs, steps.reward], [3, 2])
    chex.assert_equal_shape([steps.reward, steps.failure, steps.terminated])
    return {
        "obs": normalizer(steps.obs),
        "next_obs": normalizer(steps.next_obs),
        "action": jnp.clip(steps.decision.action, -1.0, 1.0),
        "reward": steps.reward * normalizer.reward,
        "failure": steps.failure,
        "terminated": steps.terminated,
    }


def seen_steps(steps: Transition, normalizer: Normalizer) -> dict[str, jax.Array]:
    """`window_fields` and the fields that decide where windows begin, name -> [T, N, ...]."""
    chex.assert_equal_shape([steps.done, steps.failing_steps, steps.diverged])
    return window_fields(steps, normalizer) | {
        "done": steps.done,
        "failing_steps": steps.failing_steps,
        "unusable": ~steps.usable,
    }


def make_adaptation(
    model: LatentModel,
    config: AdaptationConfig,
    world: WorldModelConfig,
    acting: Callable[[Params, Params], learning.Acting],
) -> OnlineLearning:
    """The world model's learning online. Its state is an `Adaptation`, its rehearsal `Windows`.

    `acting(task policy, recovery policy)` gives the actions whose risk is learnt. Gradient steps
    run the program of the offline fit.
    """
    _, fit = learning.make_fit(model, world)
    rates = jnp.full(world.chunk, config.learning_rate)

    def init(params: Params) -> Adaptation:
        wide = model.observation_size, model.action_size
        sizes = config.windows, config.failing_windows
        rings = (create_ring(n, world.train_horizon, *wide) for n in sizes)
        return Adaptation(learning.model_state(params, world), *rings)

    def observe(
        adaptation: Adaptation, normalizer: Normalizer, steps: Transition, key: jax.Array
    ) -> Adaptation:
        key_recent, key_failing = jax.random.split(key)
        fields = seen_steps(steps, normalizer)
        usable, failing = usable_windows(fields, world.train_horizon, world.failing_run_cap)
        most = min(config.windows_per_rollout, usable.size)
        return adaptation.replace(
            recent=store(adaptation.recent, fields, usable, key_recent, most, config.memory),
            failing=store(adaptation.failing, fields, failing, key_failing, most, config.memory),
        )

    @jax.jit
    def batches(
        adaptation: Adaptation, key: jax.Array, rehearsal: Windows, policies: tuple[Params, Params]
    ) -> dict[str, jax.Array]:
        keys = jax.random.split(key, world.chunk)
        drawn = jax.vmap(lambda k: mixed_batch(adaptation, k, rehearsal, world))(keys)
        return learning.with_actions(drawn, acting(*policies), jax.random.fold_in(key, 1))

    def learn(
        adaptation: Adaptation, key: jax.Array, rehearsal: Windows, policies: tuple[Params, Params]
    ) -> Adaptation:
        state, _ = fit(adaptation.model, batches(adaptation, key, rehearsal, policies), rates)
        return adaptation.replace(model=state)

    return OnlineLearning(init, observe, learn, "world_model")


def rehearsal(
    demos: dict[str, Dataset],
    normalizer: Normalizer,
    config: FarlConfig,
    success_reward: float | None,
) -> Windows:
    """Windows of all demonstrations, which the model rehearses online."""
    data = dataset.concatenate(*demos.values())
    data["reward"] = rewarded(data, normalizer, success_reward, config.world_model.discount)
    return to_windows(normalize_rows(data, normalizer), config.world_model)
