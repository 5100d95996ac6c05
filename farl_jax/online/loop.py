"""The online phase: PPO with the gate (FARL) or without it (Uni-O4).

All methods share this loop. FARL and its ablations change the controller only, the safe-RL
baselines the learners' update only. `collect` and `update` are two programs, because one with the
simulator's host callback cannot be cached on disk.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from farl_jax import devices
from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig, OnlineConfig, WorldModelConfig
from farl_jax.data.rewards import learner_reward
from farl_jax.data.rollout import unroll
from farl_jax.methods import Method
from farl_jax.nn.training import OnlineLearning, finite
from farl_jax.online.counters import Counters
from farl_jax.safety.behaviour import make_controller, start_memory
from farl_jax.safety.gate import Gate, GateMemory, failing_share
from farl_jax.safety.risk_critic import RiskData, RiskLearning, make_risk_learning
from farl_jax.types import BatchedEnv, Normalizer, Params, Transition
from farl_jax.updates import constrained, ppo
from farl_jax.world_model.adaptation import Adaptation, make_adaptation
from farl_jax.world_model.windows import Windows


@struct.dataclass
class OnlineState:
    """The complete state of an online run. A run restored from it continues exactly."""

    learners: ppo.ActorCritic | constrained.ConstrainedLearners
    env_state: Any  # State [N]
    memory: GateMemory  # [N]
    adaptation: Adaptation | RiskLearning | None  # None: frozen risk, or no gate
    failing: jax.Array  # [] share of episodes that failed lately; see `Gate.tightened`
    counters: Counters
    key: jax.Array
    env_steps: jax.Array  # [] i32


PER_ENV = ("env_state", "memory")
"""Fields of an `OnlineState` with one row for each environment."""


@dataclass(frozen=True)
class OnlinePhase:
    """The compiled functions of one online run. `frozen` and `gate` are arguments.

    A constrained method's `init` also takes the parameters of V_C.
    """

    init: Callable[..., OnlineState]
    collect: Callable[[OnlineState, Agent, Gate], tuple[OnlineState, Transition]]
    update: Callable[[OnlineState, Agent, Transition], tuple[OnlineState, dict]]
    adapt: Callable[[OnlineState, Agent, Windows | RiskData], OnlineState] | None
    steps_per_update: int


def current(state: OnlineState, frozen: Agent) -> Agent:
    """The offline result with the current task policy and the gate's current model or critic."""
    learnt = {} if state.adaptation is None else state.adaptation.learnt
    return frozen.replace(policy=state.learners.actor.params, **learnt)


@jax.jit
def sound(state: OnlineState) -> jax.Array:
    """Whether the learners and the gate's model or critic are all finite: [] bool."""
    learnt = {} if state.adaptation is None else state.adaptation.learnt
    return finite((state.learners, learnt))


def _make_learning(nets: Networks, config: FarlConfig, method: Method) -> OnlineLearning | None:
    """Online learning of the gate's model or critic; None if it is frozen or there is no gate."""
    if method.gate == "critic" and config.risk_critic.every > 0:
        return make_risk_learning(nets.critic, nets.policy, config.risk_critic, nets.sizes)
    if method.gate == "world_model" and config.adaptation.every > 0:
        both = config.adaptation, config.world_model
        return make_adaptation(nets.latent, *both, config.iql.reward_scale, nets.acting)
    return None


def make_online(env: BatchedEnv, nets: Networks, config: FarlConfig, method: Method) -> OnlinePhase:
    """Build the online phase of a method for a batched environment."""
    init_learners, update_learners = _make_update(nets, config, method)
    learning = _make_learning(nets, config, method)

    def init(frozen: Agent, key: jax.Array, cost_value: Params | None = None) -> OnlineState:
        key_reset, key_run = jax.random.split(key)
        # The state is donated at every step and `frozen` is not, so they share no buffers.
        own, own_cost_value = jax.tree.map(jnp.copy, (frozen, cost_value))
        values = (own.value, own_cost_value) if method.constrained else (own.value,)
        state = OnlineState(
            learners=init_learners(own.policy, *values),
            env_state=env.reset(key_reset),
            memory=start_memory(config, method, env),
            adaptation=learning.init(getattr(own, learning.part)) if learning else None,
            failing=jnp.asarray(config.safety.failure_limit or 0.0, jnp.float32),
            counters=Counters.zero(),
            key=key_run,
            env_steps=jnp.zeros((), jnp.int32),
        )
        return devices.settle(state, PER_ENV)

    # Jitted without the other fields of the state, so that methods share one program.
    update_learners = jax.jit(_paid(update_learners, env, config.online), donate_argnums=0)
    seen = _paid(learning.observe, env, config.world_model) if learning else None
    observe = jax.jit(seen, donate_argnums=0) if learning else None

    def update(state: OnlineState, frozen: Agent, steps: Transition):
        key, key_update, key_observe = jax.random.split(state.key, 3)
        warmup = state.env_steps <= config.online.critic_warmup
        learners, metrics = update_learners(
            state.learners, frozen.normalizer, steps, key_update, warmup
        )
        metrics["horizon_cost"] = steps.decision.risk.mean()
        metrics["failing"] = jnp.copy(state.failing)  # the next step donates the state
        state = state.replace(learners=learners, key=key)
        if learning:
            learnt = observe(state.adaptation, frozen.normalizer, steps, key_observe)
            state = state.replace(adaptation=learnt)
        return state, metrics

    def adapt(state: OnlineState, frozen: Agent, demos: Windows | RiskData) -> OnlineState:
        key, key_learn = jax.random.split(state.key)
        policies = state.learners.actor.params, frozen.recovery
        learnt = learning.learn(state.adaptation, key_learn, demos, policies)
        return state.replace(adaptation=learnt, key=key)

    options = dict(env.compiler_options)
    return OnlinePhase(
        init=jax.jit(init, compiler_options=options),
        collect=jax.jit(
            _make_collect(env, nets, config, method), compiler_options=options, donate_argnums=0
        ),
        update=update,
        adapt=adapt if learning else None,
        steps_per_update=env.num_envs * config.online.rollout,
    )


def _paid(
    learn: Callable[..., Any], env: BatchedEnv, config: OnlineConfig | WorldModelConfig
) -> Callable[..., Any]:
    """`learn(state, normalizer, steps, ...)` of steps with the rewards that a learner receives."""

    def run(state: Any, normalizer: Normalizer, steps: Transition, *rest: Any) -> Any:
        ends_well = steps.success & steps.terminated
        reward = learner_reward(steps.reward, ends_well, env.success_reward, config.discount)
        return learn(state, normalizer, steps.replace(reward=reward), *rest)

    return run


def _make_update(
    nets: Networks, config: FarlConfig, method: Method
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """(init, update) of the learners: PPO, or the method's constrained update."""
    if method.constraint == "none":
        return ppo.make_update(nets.policy, nets.value, config.online)
    return constrained.make_update(nets.policy, nets.value, config, method.constraint)


def _make_collect(
    env: BatchedEnv, nets: Networks, config: FarlConfig, method: Method
) -> Callable[..., Any]:
    controller_of = make_controller(nets, config, method, explore=True)

    def collect(state: OnlineState, frozen: Agent, gate: Gate):
        key, key_roll = jax.random.split(state.key)
        now = gate.tightened(state.failing, config.safety)
        controller = controller_of(current(state, frozen), now)
        memory, env_state, steps, _ = unroll(
            env, controller, state.memory, state.env_state, key_roll, config.online.rollout
        )
        ends = steps.first_failure.sum(), steps.done.sum()
        state = state.replace(
            env_state=env_state,
            memory=memory,
            key=key,
            failing=failing_share(state.failing, *ends, config.safety.limit_memory),
            counters=state.counters.add(steps),
            env_steps=state.env_steps + steps.reward.size,
        )
        return devices.settle(state, PER_ENV), steps

    return collect


def train(
    phase: OnlinePhase,
    state: OnlineState,
    frozen: Agent,
    gate: Gate,
    env_steps: int,
    rehearsal: tuple[int, Windows | RiskData | None] = (0, None),
) -> Iterator[tuple[OnlineState, dict[str, jax.Array]]]:
    """Collect and update until `env_steps`, yielding after every update.

    `rehearsal` is (updates between two calls of `phase.adapt`, demonstrations for them). A phase
    without `adapt` ignores it.

    The caller logs, evaluates and saves, and may stop at any time. The next step donates the
    buffers of the yielded state: save it, or copy what you need, before that.
    """
    done = int(np.max(state.env_steps))  # equal in all seeds
    while done < env_steps:
        state, steps = phase.collect(state, frozen, gate)
        state, metrics = phase.update(state, frozen, steps)
        done += phase.steps_per_update
        every, demos = rehearsal
        if phase.adapt is not None and (done // phase.steps_per_update) % every == 0:
            state = phase.adapt(state, frozen, demos)
        yield state, metrics
