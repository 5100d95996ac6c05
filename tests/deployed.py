"""The cliff walker's policies, as training runs them and as files."""

import dataclasses
import functools
import json
import pathlib
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.policy.contract import make_contract, signed
from experiments.policy.export import make_programs, write
from farl_jax import config as settings
from farl_jax.agent import Agent, Networks
from farl_jax.decision import SEED, Decide, make_decide
from farl_jax.methods import METHODS, Method
from farl_jax.safety import behaviour
from farl_jax.safety.gate import Gate
from tests.parameters import random_agent
from tests.toy import CliffWalker, make_toy

CONFIG = settings.FarlConfig(
    network=settings.NetworkConfig(width=16, depth=2),
    world_model=settings.WorldModelConfig(width=16, train_horizon=6),
    safety=settings.SafetyConfig(
        delta=0.0,  # random networks' risks are alike
        horizon=4,
        hold=2,
        min_recovery_steps=2,
        max_recovery_steps=4,
        patience=20,
    ),
    mppi=settings.MPPIConfig(samples=8, elites=2, horizon=4),
)
NETS = Networks.create(CONFIG, 2, 1)


class Case(NamedTuple):
    """A method with random networks, and a gate that fires about every other step."""

    method: Method
    learnt: Agent
    gate: Gate
    decide: Decide


@functools.cache
def make_case(name: str) -> Case:
    """One for all tests."""
    method, learnt = METHODS[name], random_agent(NETS, seed=3)
    gate = Gate.create(CONFIG.safety.horizon, CONFIG.world_model.gamma_risk, np.inf)
    if method.gated:
        walk = np.linspace(0.0, 1.2, 50, dtype=np.float32)
        state = SimpleNamespace(
            obs=jnp.stack([walk, 0.0 * walk], axis=1), step_count=jnp.ones(50, jnp.int32)
        )
        controller = behaviour.make_controller(NETS, CONFIG, method, explore=False)(learnt, gate)
        memory = behaviour.start_memory(CONFIG, method, make_toy(50))
        risk = jax.jit(lambda key: controller(memory, state, key)[1].risk)
        risk = risk(jax.random.key(0))
        gate = gate.replace(max_risk=jnp.median(risk))
    return Case(method, learnt, gate, make_decide(NETS, CONFIG, method, learnt, gate))


def training_steps(case: Case, env: Any, config: Any, nets: Networks, steps: int) -> list[Any]:
    """(state, Decision) of a single environment, as evaluation steps it; resets where it ends.

    Decision i of an episode has the key that the exported policy gives it.
    """
    controller = behaviour.make_controller(nets, config, case.method, explore=False)(
        case.learnt, case.gate
    )

    @jax.jit
    def act(memory: Any, state: Any, key: jax.Array) -> Any:
        return controller(memory, state, key)

    step = jax.jit(env.step, compiler_options=dict(env.compiler_options))
    state, seen = jax.jit(env.reset)(jax.random.key(1)), []
    memory = behaviour.start_memory(config, case.method, env)
    for i in range(steps):
        number = int(state.step_count[0])
        key = jax.random.fold_in(jax.random.key(SEED), number)
        memory, decision = act(memory, state, key)
        seen.append((state, decision))
        state, _ = step(state, decision.action, jax.random.fold_in(jax.random.key(2), i))
    return seen


def write_toy(folder: pathlib.Path, name: str = "farl", formats: Any = ("jax",)) -> Case:
    """The walker's policy as `farl export` would write it."""
    case = make_case(name)
    newest = (7, case.learnt, case.gate)
    contract = make_contract(CliffWalker(), CONFIG, name, newest, case.decide.memory)
    programs = make_programs(case.decide, name, formats, print)
    obs = np.random.default_rng(0).uniform(0.0, 1.2, (20, 2)).astype(np.float32)
    write(folder, case.decide, contract, programs, obs)
    return case


def resign(folder: pathlib.Path, **changes: Any) -> None:
    """Change a contract as somebody could who also knows how to hash it."""
    path = folder / "contract.json"
    path.write_text(json.dumps(signed(json.loads(path.read_text()) | changes)))


def with_slots(config: Any, slots: int) -> Any:
    """The same planner in other blocks, by which no number may change."""
    return dataclasses.replace(config, mppi=dataclasses.replace(config.mppi, slots=slots))
