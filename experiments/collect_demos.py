"""Demonstrations of three kinds, all by scripted controllers in the environment.

task: the expert with action noise, weak on purpose. failure: careless operators and a very noisy
expert. recovery: a careless operator gets the object near failure, then the recovery controller acts.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from envs_mjx import BatchEnv
from farl_jax import dataset
from farl_jax.config import DemosConfig
from farl_jax.dataset import Dataset
from farl_jax.rollout import plain_decision, unroll
from farl_jax.types import Controller, Decision

KINDS = ("task", "failure", "recovery")


def noisy_expert(env: Any, noise: jax.Array) -> Controller:
    """The task expert plus Gaussian action noise, standard deviation `noise` [N]. No memory."""

    def act(memory: Any, state: Any, key: jax.Array) -> tuple[Any, Decision]:
        action = jnp.clip(jax.vmap(env.expert)(state.obs), -1.0, 1.0)
        action = action + noise[:, None] * jax.random.normal(key, action.shape)
        return memory, plain_decision(jnp.clip(action, -1.0, 1.0))

    return act


def careless_operator(env: Any) -> Controller:
    """A careless operator; its memory is the traits [N], drawn anew for each episode."""

    def act(memory: Any, state: Any, key: jax.Array) -> tuple[Any, Decision]:
        traits = _fresh_traits(env, memory, state, key)
        action = jax.vmap(env.careless)(state.obs, traits)
        return traits, plain_decision(jnp.clip(action, -1.0, 1.0))

    return act


@struct.dataclass
class DangerMemory:
    """Who acts in a recovery demonstration."""

    traits: Any  # [N] the careless operator's
    recovering: jax.Array  # [N] i32 steps of the recovery under way, 0 while careless


def careless_then_recover(env: Any, config: DemosConfig) -> Controller:
    """Careless until the margin is at most `danger_margin` and shrinking, then the recovery controller.

    The recovery lasts until the safe margin or `recovery_length` steps; its steps carry `intervened`.
    """

    def act(memory: DangerMemory, state: Any, key: jax.Array) -> tuple[DangerMemory, Decision]:
        traits = _fresh_traits(env, memory.traits, state, key)
        recovering = jnp.where(state.step_count == 0, 0, memory.recovering)
        moving = jnp.linalg.norm(state.obs[:, 4:6] - state.obs[:, 22:24], axis=-1) > 5e-4
        danger = (state.failure_margin < config.danger_margin) & ~state.failure & moving
        going_on = (recovering > 0) & (state.failure_margin < config.safe_margin)
        acts = danger | (going_on & (recovering < config.recovery_length))
        careless = jax.vmap(env.careless)(state.obs, traits)
        action = jnp.where(acts[:, None], jax.vmap(env.recovery)(state.obs), careless)
        decision = plain_decision(jnp.clip(action, -1.0, 1.0)).replace(intervened=acts)
        return DangerMemory(traits, jnp.where(acts, recovering + 1, 0)), decision

    return act


def _fresh_traits(env: Any, traits: Any, state: Any, key: jax.Array) -> Any:
    drawn = jax.vmap(env.careless_traits)(jax.random.split(key, state.obs.shape[0]))
    first = state.step_count == 0

    def pick(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(first.reshape((-1,) + (1,) * (new.ndim - 1)), new, old)

    return jax.tree.map(pick, drawn, traits)


def collect(
    env: Any, config: DemosConfig, key: jax.Array
) -> dict[str, tuple[Dataset, dict[str, float]]]:
    """All three kinds: name -> (dataset, counts for the metadata)."""
    key_task, key_careless, key_noisy, key_recovery = jax.random.split(key, 4)
    half = config.failure_episodes // 2
    traits = _example_traits(env, config.num_envs)
    noise = jnp.linspace(0.3, 1.0, config.num_envs)
    task = _episodes(
        env,
        config.task_episodes,
        lambda n: (noisy_expert(env, jnp.full(n, config.task_noise)), None),
        key_task,
        config.task_episodes,
    )
    failure = dataset.concatenate(
        _episodes(
            env, config.num_envs, lambda n: (careless_operator(env), traits), key_careless, half
        ),
        _episodes(env, config.num_envs, lambda n: (noisy_expert(env, noise), None), key_noisy, half),
    )
    recovery = _recoveries(env, config, traits, key_recovery)
    return {
        kind: (data, _describe(data))
        for kind, data in zip(KINDS, (task, failure, recovery), strict=True)
    }


def _example_traits(env: Any, num_envs: int) -> Any:
    return jax.vmap(env.careless_traits)(jax.random.split(jax.random.key(0), num_envs))


def _roll(env: Any, num_envs: int, controller: Controller, memory: Any) -> Callable[..., Any]:
    batch = BatchEnv(env, num_envs)

    def roll(key: jax.Array) -> Any:
        key_reset, key_roll = jax.random.split(key)
        state = batch.reset(key_reset)
        return unroll(batch, controller, memory, state, key_roll, env.episode_limit)[2]

    return jax.jit(roll, compiler_options=dict(env.compiler_options))


def _episodes(
    env: Any,
    num_envs: int,
    controller_of: Callable[[int], tuple[Controller, Any]],
    key: jax.Array,
    episodes: int,
) -> Dataset:
    """Roll until `episodes` episodes are complete; the first ones in order of collection are kept."""
    roll = _roll(env, num_envs, *controller_of(num_envs))
    parts, complete = [], 0
    while complete < episodes:
        key, key_roll = jax.random.split(key)
        steps = roll(key_roll)
        ended = np.asarray(steps.done)
        unfinished = np.flip(np.cumsum(np.flip(ended, 0), 0), 0) == 0
        data = dataset.from_rollout(steps, keep=~unfinished)
        parts.append(data)
        complete += dataset.num_episodes(data)
    data = dataset.concatenate(*parts)
    return dataset.select_episodes(data, np.arange(episodes))


def _recoveries(env: Any, config: DemosConfig, traits: Any, key: jax.Array) -> Dataset:
    """Recovery steps only, one episode each, until `recovery_episodes` of them are in."""
    memory = DangerMemory(traits, jnp.zeros(config.num_envs, jnp.int32))
    roll = _roll(env, config.num_envs, careless_then_recover(env, config), memory)
    parts, complete = [], 0
    for _ in range(20):
        key, key_roll = jax.random.split(key)
        steps = roll(key_roll)
        parts.append(dataset.from_rollout(steps, keep=np.asarray(steps.decision.intervened)))
        complete += dataset.num_episodes(parts[-1])
        if complete >= config.recovery_episodes:
            break
    data = dataset.concatenate(*parts)
    return dataset.select_episodes(data, np.arange(config.recovery_episodes))


def _describe(data: Dataset) -> dict[str, float]:
    failing = np.unique(data["episode"][data["failure"]])
    return {
        "steps": len(data["episode"]),
        "episodes": dataset.num_episodes(data),
        "failure_episodes": len(failing),
        "successes": int(data["terminated"].sum()),
    }


def write(folder: Path, env: Any, config: DemosConfig, key: jax.Array) -> dict[str, dict]:
    """Collect and save all kinds as `<folder>/<kind>.npz`; returns their counts."""
    counts = {}
    for kind, (data, counted) in collect(env, config, key).items():
        dataset.save_dataset(
            folder / f"{kind}.npz", data, {"task": env.name, "kind": kind, "counts": counted}
        )
        counts[kind] = counted
    return counts


def read(folder: Path, task: str) -> dict[str, Dataset]:
    """Load all kinds of a task, checked."""
    return {kind: dataset.load_dataset(folder / f"{kind}.npz", task=task)[0] for kind in KINDS}
