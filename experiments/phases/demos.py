"""Demonstrations of three kinds, collected with scripted controllers.

task: the expert with action noise, weak on purpose. failure: careless operators and a very noisy
expert. recovery: a careless operator moves the object near failure, then the recovery controller
acts.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from envs_mjx import BatchEnv
from farl_jax.config import DemosConfig
from farl_jax.data import dataset
from farl_jax.data.dataset import KINDS, Dataset
from farl_jax.data.margins import foreseen_margin, resolve_margins
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.types import Controller, Decision, Transition

MAX_ROLLS = 100
SHRINKING = 5e-4
"""m per step: a margin that shrinks more slowly counts as constant."""

Roll = Callable[[jax.Array, jax.Array], Transition]
"""(noise or danger margin, key) -> one rollout [T, N] from reset, T the episode limit."""


class Watch(NamedTuple):
    """Memory of `careless_then_recover` for N environments."""

    recovering: jax.Array  # [N] i32 steps of the present recovery, 0 while careless
    margin: jax.Array  # [N] m, one step ago


def new_watch(size: int) -> Watch:
    """The first memory of `size` environments."""
    return Watch(jnp.zeros(size, jnp.int32), jnp.zeros(size))


def noisy_expert(env: Any, noise: jax.Array) -> Controller:
    """The task expert plus Gaussian action noise, standard deviation `noise` [N]. No memory."""

    def act(memory: Any, state: Any, key: jax.Array) -> tuple[Any, Decision]:
        action = jnp.clip(jax.vmap(env.expert)(state.obs), -1.0, 1.0)
        action = action + noise[:, None] * jax.random.normal(key, action.shape)
        return memory, plain_decision(jnp.clip(action, -1.0, 1.0))

    return act


def careless_then_recover(
    env: Any, traits: Any, danger_margin: jax.Array, config: DemosConfig
) -> Controller:
    """Careless until a shrinking margin is predicted below `danger_margin`, then recovery.

    Recovery ends when the safe margin is predicted, or after `recovery_length` steps. Its steps
    have `intervened` set. Memory starts as `new_watch(N)`. Noise is added to recovery actions, from
    none in the first environment to `recovery_noise` in the last, so that a clone also learns to
    correct its own errors (DART, Laskey et al. 2017).

    Args:
        env: the single environment.
        traits: of N careless operators.
        danger_margin: [] m; -inf never recovers.
        config: lengths, lead and the safe margin.
    """
    margins = resolve_margins(config, env)
    level = config.recovery_noise * jnp.linspace(0.0, 1.0, len(jax.tree.leaves(traits)[0]))

    def act(memory: Watch, state: Any, key: jax.Array) -> tuple[Watch, Decision]:
        fresh = state.step_count == 0
        recovering = jnp.where(fresh, 0, memory.recovering)
        before = jnp.where(fresh, state.failure_margin, memory.margin)
        shrinking = before - state.failure_margin > SHRINKING
        soon = foreseen_margin(state.failure_margin, before, margins.danger_lead)
        danger = (soon < danger_margin) & ~state.failure & shrinking
        going_on = (recovering > 0) & (soon < margins.safe_margin)
        acts = danger | (going_on & (recovering < config.recovery_length))
        careless = jax.vmap(env.careless)(state.obs, traits)
        action = jnp.where(acts[:, None], jax.vmap(env.recovery)(state.obs), careless)
        intended = jnp.clip(action, -1.0, 1.0)
        noise = level[:, None] * jax.random.normal(key, intended.shape)
        executed = jnp.where(acts[:, None], jnp.clip(intended + noise, -1.0, 1.0), intended)
        decision = plain_decision(intended).replace(action=executed, intervened=acts)
        return Watch(jnp.where(acts, recovering + 1, 0), state.failure_margin), decision

    return act


def make_rolls(env: Any, config: DemosConfig) -> tuple[Roll, Roll]:
    """Build two compiled rollouts of N = `num_envs`: of the expert, and of careless operators.

    Their first argument is the noise [N], or the danger margin [] m. Each rollout draws new
    operators from its key.
    """
    batch, size = BatchEnv(env, config.num_envs), config.num_envs

    def roll(controller: Controller, memory: Any, key: jax.Array) -> Transition:
        key_reset, key_roll = jax.random.split(key)
        state = batch.reset(key_reset)
        return unroll(batch, controller, memory, state, key_roll, env.episode_limit)[2]

    def expert(noise: jax.Array, key: jax.Array) -> Transition:
        return roll(noisy_expert(env, noise), None, key)

    def careless(danger_margin: jax.Array, key: jax.Array) -> Transition:
        key_traits, key_roll = jax.random.split(key)
        traits = jax.vmap(env.careless_traits)(jax.random.split(key_traits, size))
        controller = careless_then_recover(env, traits, danger_margin, config)
        return roll(controller, new_watch(size), key_roll)

    options = dict(env.compiler_options)
    return jax.jit(expert, compiler_options=options), jax.jit(careless, compiler_options=options)


def collect(
    env: Any, config: DemosConfig, key: jax.Array
) -> dict[str, tuple[Dataset, dict[str, float]]]:
    """Collect all three kinds: name -> (dataset, counts for the metadata)."""
    key_task, key_careless, key_noisy, key_recovery = jax.random.split(key, 4)
    expert, careless = make_rolls(env, config)
    weak = jnp.full(config.num_envs, config.task_noise, jnp.float32)  # typed as `wild` is
    wild = jnp.linspace(0.3, 1.0, config.num_envs)
    never, danger = jnp.float32(-jnp.inf), jnp.float32(resolve_margins(config, env).danger_margin)
    half = config.failure_episodes // 2
    most = config.failure_episodes - half
    data = {
        "task": _gather(lambda k: _complete(expert(weak, k)), key_task, config.task_episodes),
        "failure": dataset.concatenate(
            _gather(lambda k: _complete(careless(never, k)), key_careless, most),
            _gather(lambda k: _complete(expert(wild, k)), key_noisy, half),
        ),
        "recovery": _gather(
            lambda k: _recoveries(careless(danger, k)), key_recovery, config.recovery_episodes
        ),
    }
    return {kind: (part, _describe(part)) for kind, part in data.items()}


def _gather(part_of: Callable[[jax.Array], Dataset], key: jax.Array, episodes: int) -> Dataset:
    """Collect parts until there are `episodes` episodes, and keep the first ones."""
    parts: list[Dataset] = []
    for _ in range(MAX_ROLLS):
        key, key_roll = jax.random.split(key)
        parts.append(part_of(key_roll))
        if sum(dataset.num_episodes(part) for part in parts) >= episodes:
            return dataset.select_episodes(dataset.concatenate(*parts), np.arange(episodes))
    found = sum(dataset.num_episodes(part) for part in parts)
    raise dataset.DatasetError(
        f"only {found} of {episodes} demonstrations after {MAX_ROLLS} rollouts; ask for fewer"
    )


def _complete(steps: Transition) -> Dataset:
    """The episodes that ended inside the rollout."""
    ends_later = np.flip(np.cumsum(np.flip(np.asarray(steps.done), 0), 0), 0) > 0
    return dataset.from_rollout(steps, keep=ends_later)


def _recoveries(steps: Transition) -> Dataset:
    """The steps of each environment's first recovery, as one episode each.

    Later recoveries are mostly short, because the careless operator repeats the same error.
    """
    return dataset.from_rollout(steps, keep=first_runs(np.asarray(steps.decision.intervened)))


def first_runs(flags: np.ndarray) -> np.ndarray:
    """The first unbroken run of True in each column, [T, N] -> [T, N]."""
    return flags & (np.cumsum(np.diff(flags, axis=0, prepend=False) & flags, axis=0) == 1)


def _describe(data: Dataset) -> dict[str, float]:
    failing = np.unique(data["episode"][data["failure"]])
    return {
        "steps": len(data["episode"]),
        "episodes": dataset.num_episodes(data),
        "failure_episodes": len(failing),
        "successes": int(data["terminated"].sum()),
    }


def write(
    folder: Path, env: Any, config: DemosConfig, key: jax.Array, about: Mapping[str, Any]
) -> dict[str, dict]:
    """Collect and save all kinds as `<folder>/<kind>.npz`, and return their counts.

    `about` is JSON for the metadata of each.
    """
    counts = {}
    for kind, (data, counted) in collect(env, config, key).items():
        metadata = {**about, "task": env.name, "kind": kind, "counts": counted}
        dataset.save_dataset(folder / f"{kind}.npz", data, metadata)
        counts[kind] = counted
    return counts


def read(
    folder: Path, task: str, sizes: tuple[int, int]
) -> dict[str, tuple[Dataset, dict[str, Any]]]:
    """Load and check all kinds of a task, with their metadata. For `sizes` see `load_dataset`."""
    load = partial(dataset.load_dataset, task=task, sizes=sizes)
    return {kind: load(folder / f"{kind}.npz", kind=kind) for kind in KINDS}
