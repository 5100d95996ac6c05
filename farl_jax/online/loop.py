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

from farl_jax import devices
from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig, OnlineConfig, WorldModelConfig
from farl_jax.data.rewards import learner_reward
from farl_jax.methods import Method
from farl_jax.nn.training import OnlineLearning, finite
from farl_jax.online.budget import Budget
from farl_jax.online.collect import make_collect
from farl_jax.online.counters import Counters
from farl_jax.online.side_by_side import SideBySide, pays, possible
from farl_jax.online.state import PER_ENV, OnlineState, current
from farl_jax.safety.behaviour import start_memory
from farl_jax.safety.gate import Gate
from farl_jax.safety.risk_critic import RiskData, make_risk_learning
from farl_jax.types import BatchedEnv, Normalizer, Params, Transition
from farl_jax.updates import constrained, ppo
from farl_jax.world_model.adaptation import make_adaptation
from farl_jax.world_model.windows import Windows

__all__ = ["PER_ENV", "OnlinePhase", "OnlineState", "current", "make_online", "sound", "train"]


@dataclass(frozen=True)
class OnlinePhase:
    """The compiled functions of one online run. `frozen` and `gate` are arguments.

    A constrained method's `init` also takes the parameters of V_C.
    """

    init: Callable[..., OnlineState]
    collect: Callable[[OnlineState, Agent, Gate], tuple[OnlineState, Transition]]
    update: Callable[..., tuple[OnlineState, dict]]
    """(state, frozen, steps, demonstrations or None) -> (state, metrics). With demonstrations, what
    the gate asks takes a chunk of gradient steps, too."""
    learns_risk: bool
    """Whether what the gate asks learns online. If not, `update` needs no demonstrations."""
    budget: Budget

    @property
    def steps_per_update(self) -> int:
        """Steps of a rollout, over all environments."""
        return self.budget.steps_per_update


@jax.jit
def sound(state: OnlineState) -> jax.Array:
    """Whether the learners and the gate's model or critic are all finite: [] bool."""
    learnt = {} if state.adaptation is None else state.adaptation.learnt
    return finite((state.learners, learnt))


def _make_learning(nets: Networks, config: FarlConfig, method: Method) -> OnlineLearning | None:
    """Online learning of the gate's model or critic; None if it is frozen or there is no gate."""
    if method.gate == "critic" and config.risk_critic.every > 0:
        return make_risk_learning(nets.critic, nets.policy, config.risk_critic, nets.sizes)
    if method.models and config.adaptation.every > 0:
        both = config.adaptation, config.world_model
        return make_adaptation(nets.latent, *both, nets.acting)
    return None


def make_online(env: BatchedEnv, nets: Networks, config: FarlConfig, method: Method) -> OnlinePhase:
    """Build the online phase of a method for a batched environment."""
    init_learners, update_learners = _make_update(env, nets, config, method)
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
            drift=jnp.zeros(()),
            counters=Counters.zero(),
            key=key_run,
            env_steps=jnp.zeros((), jnp.int32),
        )
        return devices.settle(state, PER_ENV)

    # Jitted without the other fields of the state, so that methods share one program.
    seen = _paid(learning.observe, env, config.world_model) if learning else None
    observe = jax.jit(seen, donate_argnums=0) if learning else None

    def update(state: OnlineState, frozen: Agent, steps: Transition, demos: Any = None):
        key, key_update, key_observe, key_learn = jax.random.split(state.key, 4)
        warmup = state.env_steps <= config.online.critic_warmup
        policies = jax.tree.map(jnp.copy, state.learners.actor.params), frozen.recovery

        def learn_risk():
            if not learning:
                return None
            learnt = observe(state.adaptation, frozen.normalizer, steps, key_observe)
            return learnt if demos is None else learning.learn(learnt, key_learn, demos, policies)

        learners, metrics, adaptation = update_learners(
            (state.learners, frozen.normalizer, steps, key_update, warmup), learn_risk
        )
        metrics["horizon_cost"] = steps.decision.risk.mean(where=steps.counted)
        metrics["drift"] = jnp.copy(state.drift)  # the next step donates the state
        return state.replace(learners=learners, key=key, adaptation=adaptation), metrics

    return OnlinePhase(
        init=jax.jit(init, compiler_options=dict(env.compiler_options)),
        collect=make_collect(env, nets, config, method),
        update=update,
        learns_risk=learning is not None,
        budget=Budget(config.online, env.num_envs),
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
    env: BatchedEnv, nets: Networks, config: FarlConfig, method: Method
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Build the learners' init, and `update(args, beside) -> (learners, metrics, beside's result)`.

    `args` are (learners, normalizer, steps, key, warmup). `beside` is a function of nothing that
    launches other programs. On a CPU the policy learns in one thread; the value function learns and
    `beside` runs in another.
    """
    if method.constrained:
        init, update = constrained.make_update(nets.policy, nets.value, config, method.constraint)
    else:
        init, update = ppo.make_update(nets.policy, nets.value, config.online)
    whole = jax.jit(_paid(update, env, config.online), donate_argnums=0)
    in_turn = lambda args, beside: (*whole(*args), beside())
    if method.constrained or not pays():
        return init, in_turn
    parts, threads = ppo.make_parts(nets.policy, nets.value, config.online), SideBySide(2)
    prepare = jax.jit(_paid(parts.prepare, env, config.online))
    actor, critic = (jax.jit(part, donate_argnums=0) for part in (parts.actor, parts.critic))

    def at_once(args: tuple[Any, ...], beside: Callable[[], Any]):
        learners, normalizer, steps, key, warmup = args
        if not possible(key):
            return in_turn(args, beside)
        batch = prepare(learners.critic.params, normalizer, steps)
        (policy, metrics), ((value, more), result) = threads.run(
            [
                lambda: actor(learners.actor, batch, key, warmup),
                lambda: (critic(learners.critic, batch, key), beside()),
            ]
        )
        return ppo.ActorCritic(policy, value), metrics | more, result

    return init, at_once


def train(
    phase: OnlinePhase,
    state: OnlineState,
    frozen: Agent,
    gate: Gate,
    env_steps: int,
    rehearsal: tuple[int, Windows | RiskData | None] = (0, None),
) -> Iterator[tuple[OnlineState, dict[str, jax.Array]]]:
    """Collect and update until `env_steps` or the budget's episodes; yield after every update.

    `rehearsal` is (updates between two chunks of learning the risk, demonstrations for them). A
    phase that does not learn it ignores this.

    The caller logs, evaluates and saves, and may stop at any time. The next step donates the
    buffers of the yielded state: save it, or copy what you need, before that.
    """
    done = phase.budget.progress(state)
    while not phase.budget.spent(done, env_steps):
        state, steps = phase.collect(state, frozen, gate)
        done = phase.budget.after(done, state)
        every, demos = rehearsal
        due = phase.learns_risk and done.updates % every == 0
        state, metrics = phase.update(state, frozen, steps, demos if due else None)
        yield state, metrics
