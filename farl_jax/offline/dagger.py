"""DAgger for the recovery policy (Ross et al. 2011).

A clone makes errors, and reaches states without demonstrations. So the task policy and the clone
take turns in the environment, and the scripted controller labels every step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from farl_jax.config import FarlConfig
from farl_jax.data import dataset
from farl_jax.data.dataset import Dataset
from farl_jax.data.practice import Practice
from farl_jax.data.rollout import plain_decision, unroll
from farl_jax.nn import distributions
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.offline import bc
from farl_jax.types import BatchedEnv, Controller, Decision, Normalizer, Params

Policies = tuple[GaussianPolicy, GaussianPolicy]
"""Networks of the task policy and of the recovery policy."""


def taking_turns(
    policies: Policies,
    task: Params,
    recovery: Params,
    normalizer: Normalizer,
    env: BatchedEnv,
    turn: float,
) -> Controller:
    """The exploring task policy and the clone's mean act in turns; `task_action` is the label.

    Turn lengths are geometric with mean `turn`, and the task policy begins. The label is the action
    of `env.recovery`. Memory: [N] bool, whether the clone acts.
    """

    def act(cloned: jax.Array, state: Any, key: jax.Array) -> tuple[jax.Array, Decision]:
        key_explore, key_turn = jax.random.split(key)
        obs = normalizer(state.obs)
        wanted = distributions.sample(key_explore, *policies[0].apply(task, obs))
        over = jax.random.bernoulli(key_turn, 1.0 / turn, cloned.shape)
        cloned = (cloned ^ over) & (state.step_count > 0)
        action = jnp.where(cloned[:, None], policies[1].apply(recovery, obs)[0], wanted)
        answer = jnp.clip(env.recovery(state.obs), -1.0, 1.0)
        return cloned, plain_decision(answer).replace(action=action, intervened=cloned)

    return act


def make_collect(
    policies: Policies, env: BatchedEnv, turn: float
) -> Callable[[Params, Params, Normalizer, jax.Array], Dataset]:
    """Build `collect(task, recovery, normalizer, key) -> Dataset` of N times one episode's length.

    `intended` actions [M, A] are the labels, `action` is executed.
    """

    def roll(task: Params, recovery: Params, normalizer: Normalizer, key: jax.Array):
        key_reset, key_roll = jax.random.split(key)
        controller = taking_turns(policies, task, recovery, normalizer, env, turn)
        nobody = jnp.zeros(env.num_envs, bool)
        state = env.reset(key_reset)
        return unroll(env, controller, nobody, state, key_roll, env.episode_limit)[2]

    roll = jax.jit(roll, compiler_options=dict(env.compiler_options))

    def collect(task: Params, recovery: Params, normalizer: Normalizer, key: jax.Array) -> Dataset:
        return dataset.from_rollout(roll(task, recovery, normalizer, key))

    return collect


def clone_recovery(
    env: BatchedEnv,
    policies: Policies,
    task: Params,
    data: Dataset,
    normalizer: Normalizer,
    config: FarlConfig,
    key: jax.Array,
) -> tuple[Params, float, Practice]:
    """Clone the recovery policy from demonstrations, then also from DAgger's labels.

    Args:
        env: in which both policies act, and whose `recovery` labels.
        policies: their networks.
        task: the task policy.
        data: recovery demonstrations.
        normalizer: of observations.
        config: the run's numbers. Without interaction, or with `dagger_rounds` 0, it uses the
            demonstrations only.
        key: consumed.

    Returns:
        ensemble [E, ...], its mean held-out negative log-likelihood, counts of DAgger's episodes.
    """
    demos, practice = config.demos, Practice()
    rounds = demos.dagger_rounds if demos.interaction == "practice" else 0
    rows = len(data["episode"]) + rounds * env.num_envs * env.episode_limit
    clone = bc.make_clone(policies[1], config.recovery_bc, rows)
    collect = make_collect(policies, env, demos.dagger_turn)
    key, key_fit = jax.random.split(key)
    clones, nll = clone(key_fit, data, normalizer)
    for i, key_round in enumerate(jax.random.split(key, rounds)):
        key_roll, key_fit = jax.random.split(key_round)
        member = jax.tree.map(lambda leaf, i=i: leaf[i % len(leaf)], clones)
        own = collect(task, member, normalizer, key_roll)
        practice, data = practice + Practice.of(own), dataset.concatenate(data, own)
        clones, nll = clone(key_fit, data, normalizer)
    return clones, nll, practice
