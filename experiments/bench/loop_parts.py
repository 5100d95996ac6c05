"""Times of the online loop and of its parts, each compiled alone."""

import dataclasses
import time
from collections.abc import Callable
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runs.presets import preset
from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig
from farl_jax.data.dataset import from_rollout, normalize_rows
from farl_jax.data.rollout import plain_decision, policy_controller, unroll
from farl_jax.methods import METHODS
from farl_jax.online.loop import OnlinePhase, make_online, train
from farl_jax.online.seeds import Seeds
from farl_jax.safety.gate import Gate, policy_recovery
from farl_jax.safety.imagination import make_imagined_risk
from farl_jax.types import Normalizer
from farl_jax.world_model.windows import to_windows

PARTS = ("physics", "policy", "gate", "update", "world_model", "rest")
"""physics: steps, rewards and resets; policy: its action; gate: its risks and the recovery action;
update: PPO and the choice of windows; world_model: its online learning; rest: the loop's time minus
the parts' times. It is below 0 if the parts are faster together than alone."""
ROUNDS = 5
NEVER = 1 << 30


@dataclasses.dataclass(frozen=True)
class Setup:
    """An online phase of FARL with random weights, and its inputs."""

    task: str
    backend: str
    num_envs: int

    @cached_property
    def config(self) -> FarlConfig:
        """The paper preset with this many environments, and an actor that learns from the start."""
        config = preset("paper")
        online = dataclasses.replace(config.online, num_envs=self.num_envs, critic_warmup=0)
        return dataclasses.replace(config, online=online)

    @cached_property
    def env(self) -> Any:
        """The batched environment."""
        from envs_mjx import BatchEnv, make

        return BatchEnv(make(self.task, self.backend), self.num_envs)

    @cached_property
    def nets(self) -> Networks:
        """All networks."""
        return Networks.create(self.config, self.env.observation_size, self.env.action_size)

    @cached_property
    def phase(self) -> OnlinePhase:
        """The measured functions."""
        return make_online(self.env, self.nets, self.config, METHODS["farl"])

    @cached_property
    def frozen(self) -> Agent:
        """Small random weights."""
        rng, abstract = np.random.default_rng(0), self.nets.abstract_agent()
        draw = lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype)
        size = self.env.observation_size
        normalizer = Normalizer(jnp.zeros(size), jnp.ones(size))
        return jax.tree.map(draw, abstract).replace(normalizer=normalizer)

    @cached_property
    def gate(self) -> Gate:
        """The configured gate; its cost does not depend on its decisions."""
        safety, gamma = self.config.safety, self.config.world_model.gamma_risk
        return Gate.create(safety.horizon, gamma, safety.max_risk or 0.01)


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """(result, seconds until all of it is there)."""
    started = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - started


def usual(function: Callable[..., Any], *args: Any, seconds: float) -> float:
    """Return the median seconds of ROUNDS calls, or fewer if time is short, after one to compile.

    Medians here as in `loop`: best times would inflate `rest`.
    """
    timed(function, *args)
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < ROUNDS and sum(taken) < seconds):
        taken.append(timed(function, *args)[1])
    return float(np.median(taken))


def rehearsal(setup: Setup, steps: Any) -> Any:
    """Return windows of a rollout, in place of demonstrations."""
    data = normalize_rows(from_rollout(jax.device_get(steps)), setup.frozen.normalizer)
    return to_windows(data, setup.config.world_model)


def parts(setup: Setup, begun: tuple[Any, Any, Any], seconds: float) -> dict[str, Any]:
    """Return env steps per second of the loop, and seconds of its parts per policy update."""
    state, steps, demos = begun
    phase, every = setup.phase, max(setup.config.adaptation.every, 1)
    taken = {k: usual(*program, seconds=seconds) for k, program in programs(setup, begun).items()}
    updating, adapting = [], []
    for own, spent in ROUNDS * [(None, updating), (demos, adapting)]:
        (state, _), once = timed(phase.update, state, setup.frozen, steps, own)
        spent.append(once)
    update, both = (float(np.median(spent)) for spent in (updating, adapting))
    taken |= {"update": update, "world_model": (both - update) / every}
    whole = loop(setup, 1, demos, seconds)
    taken["rest"] = whole - sum(taken.values())
    return {
        "steps_per_second": phase.steps_per_update / whole,
        "steps_per_update": phase.steps_per_update,
        "seconds": taken,
        "shares": {name: taken[name] / whole for name in PARTS},
    }


def loop(setup: Setup, number: int, demos: Any, seconds: float) -> float:
    """Return seconds of one policy update of `number` seeds together, with world-model learning."""
    seeds, every = Seeds(number), max(setup.config.adaptation.every, 1)
    phase = seeds.lift_phase(setup.phase)
    copies = lambda tree: seeds.join([tree] * number)
    frozen, gate, demos = map(copies, (setup.frozen, setup.gate, demos))
    keys = seeds.join(list(jax.random.split(jax.random.key(2), number)))
    turns = train(phase, phase.init(frozen, keys), frozen, gate, NEVER, (every, demos))
    cycle = lambda: [jax.block_until_ready(next(turns)) for _ in range(every)][-1]
    timed(cycle)  # compiles
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < 2 * ROUNDS and sum(taken) < seconds):
        taken.append(timed(cycle)[1])
    return float(np.median(taken)) / every


def programs(setup: Setup, begun: tuple[Any, Any, Any]) -> dict[str, tuple[Any, ...]]:
    """Return parts of a rollout [T, N] as (compiled function, its recorded arguments)."""
    (state, steps, _), nets = begun, setup.nets
    env, frozen = setup.env, setup.frozen

    def physics(env_state: Any, actions: jax.Array, key: jax.Array) -> jax.Array:
        replay = lambda t, state, key: (t + 1, plain_decision(actions[t]))
        *_, steps, _ = unroll(env, replay, 0, env_state, key, len(actions))
        return steps

    def policy(obs: jax.Array, key: jax.Array) -> Any:
        act = policy_controller(nets.policy.apply, frozen.policy, frozen.normalizer, explore=True)
        keys = jax.random.split(key, len(obs))
        return jax.lax.map(lambda at: act(None, SimpleNamespace(obs=at[0]), at[1]), (obs, keys))

    def gate(obs: jax.Array, actions: jax.Array) -> Any:
        return jax.lax.map(lambda at: ask_gate(setup, *at), (frozen.normalizer(obs), actions))

    jit = partial(jax.jit, compiler_options=dict(env.compiler_options))
    key, actions = jax.random.key(1), steps.decision.action
    return {
        "physics": (jit(physics), state.env_state, actions, key),
        "policy": (jit(policy), steps.obs, key),
        "gate": (jit(gate), steps.obs, steps.decision.task_action),
    }


def ask_gate(setup: Setup, obs: jax.Array, actions: jax.Array) -> tuple[Any, jax.Array]:
    """Return (the gate's risks, [N] each, recovery actions [N, A]) at normalised obs [N, O]."""
    nets, frozen = setup.nets, setup.frozen
    risk = make_imagined_risk(nets, frozen, setup.gate, setup.config.safety)
    recover = policy_recovery(nets.recovery, frozen.recovery)
    return risk(obs, actions), recover(None, obs, None, None)[1]


def gate_flop(setup: Setup) -> int:
    """Return floating-point operations of the gate's risks and of the recovery action for one step.

    2 for each weight of each matrix product. One risk: h once, F H + 1 times, d K times, decoder
    and policy once for each held action, and all risk heads once if there is a tail. K is H, and
    H + 1 with a tail. All rules but the paper's imagine two futures, and need recovery's action.
    """
    abstract, safety = setup.frozen, setup.config.safety
    model = abstract.world_model["params"]
    weights = lambda tree, ndim: sum(x.size for x in jax.tree.leaves(tree) if x.ndim == ndim)
    count = lambda tree, ndim=2: 2 * weights(tree, ndim)
    part = lambda name, ndim=2: count(model.get(name, {}), ndim)
    steps, rescue = safety.horizon + safety.tail, count(abstract.recovery)
    imagined = (safety.horizon + 1) * part("failure_head") + steps * part("dynamics")
    tail = part("risk_heads", 3) if safety.tail else 0  # stacked: [heads, inputs, outputs]

    def risk(policy: int) -> int:
        asked = (steps // safety.hold) * (part("decoder") + policy)
        return part("encoder") + imagined + asked + tail

    first, second = risk(count(abstract.policy)), risk(rescue)
    risks = {"paper": first, "shield": 2 * second + rescue, "helps": first + second + rescue}
    return risks[safety.rule] + rescue


def roofline(setup: Setup, gate_seconds: float) -> dict[str, float]:
    """Compare the gate's arithmetic speed with that of one big matrix product."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((size, size))
    peak = 2 * size**3 / usual(jax.jit(jnp.matmul), square, square, seconds=5.0)
    flop = gate_flop(setup) * setup.phase.steps_per_update
    return {
        "gate_flop_per_step": gate_flop(setup),
        "matmul_flop_per_second": peak,
        "gate_flop_per_second": flop / gate_seconds,
        "gate_share_of_matmul": flop / gate_seconds / peak,
    }


def device_memory_gb() -> float | None:
    """Return the device's peak memory, or None if it shares the host's."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e9 if "peak_bytes_in_use" in stats else None
