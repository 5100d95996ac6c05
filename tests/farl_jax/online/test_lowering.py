"""Every program of a run lowers for CUDA, on a machine without a GPU: `pytest -m slow`.

A program that lowers has no host callback, no float64 and no call that only a CPU knows. Its size
and its loops are stated in `PROGRAMS` (`pytest -s` prints them). What XLA makes of it on a GPU, and
how fast it is there, only a GPU can tell.
"""

import collections
import re
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax import export

from envs_mjx import TASKS, BatchEnv, make
from envs_mjx.physics import backends
from experiments.runs.presets import preset
from farl_jax.agent import Networks
from farl_jax.data.dataset import from_rollout
from farl_jax.measure import evaluate
from farl_jax.methods import METHODS
from farl_jax.online.loop import make_online
from farl_jax.safety import behaviour
from farl_jax.safety.gate import Gate
from farl_jax.safety.risk_critic import to_risk_data
from farl_jax.world_model.windows import to_windows

GPU_CALLS = {"cusolver_potrf_ffi", "cu_threefry2x32_ffi"}
"""Custom calls that jaxlib implements on CUDA: Cholesky factors, random bits."""


class Bounds(NamedTuple):
    """What a program may have at most."""

    kilobytes: int
    """Of the serialised module."""
    loops: int


PROGRAMS = {
    "reset": Bounds(50, 0),
    "step": Bounds(600, 5),  # substeps; in each the solver and its line search; what a task adds
    "init": Bounds(100, 0),
    "collect": Bounds(800, 10),  # MPPI's has 8
    "update": Bounds(700, 17),  # of the learners, and of the gate's model or critic
    "evaluate": Bounds(700, 10),
}


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Programs are built as where a GPU is the default device; lowering needs none."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    backends.cpu_compiler_options.cache_clear()
    yield
    backends.cpu_compiler_options.cache_clear()


def lower(name, function, *args) -> collections.Counter:
    """Lower the program `name` for CUDA, check what must hold, and count the operations."""
    exported = export.export(function, platforms=["cuda"])(*args)
    text = exported.mlir_module()
    calls = set(re.findall(r"custom_call @(\w+)", text))
    calls |= set(re.findall(r'call_target_name = "([^"]+)"', text))
    assert not {call for call in calls if "callback" in call}
    assert calls <= GPU_CALLS
    assert not re.search(r"tensor<([0-9]+x)*f64>", text)
    found = collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
    kilobytes = len(exported.mlir_module_serialized) // 1000
    loops, moves = found["while"], found["gather"] + found["scatter"]
    print(f"{name}: {kilobytes} kB, {loops} loops, {moves} gathers and scatters, calls {calls}")
    assert kilobytes <= PROGRAMS[name].kilobytes
    assert loops <= PROGRAMS[name].loops
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", TASKS)
@pytest.mark.usefixtures("as_on_a_gpu")
def test_reset_and_step_of_a_task(task):
    env = BatchEnv(make(task, "mjx"), 64)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((64, env.action_size), "float32")
    lower("reset", jax.jit(env.reset), key)
    lower("step", jax.jit(env.step), state, action, key)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.usefixtures("as_on_a_gpu")
def test_all_programs_of_a_method(method):
    task, spec = "bounded_push", METHODS[method]
    config = preset("smoke")
    env = BatchEnv(make(task, "mjx"), config.online.num_envs)
    nets = Networks.create(config, env.observation_size, env.action_size)
    phase = make_online(env, nets, config, spec)
    frozen, key = nets.abstract_agent(), jax.eval_shape(lambda: jax.random.key(0))
    critic = {"risk_critic": nets.abstract_risk_critic()} if spec.gate == "critic" else {}
    frozen = frozen.replace(**critic)
    values = (frozen.value,) if spec.constrained else ()
    gate = jax.eval_shape(lambda: Gate.create(config.safety.horizon, 0.95, 0.01))
    state = jax.eval_shape(phase.init, frozen, key, *values)
    lower("init", phase.init, frozen, key, *values)
    _, steps = jax.eval_shape(phase.collect, state, frozen, gate)
    lower("collect", phase.collect, state, frozen, gate)
    demos = _rehearsal(config, spec, steps) if phase.learns_risk else None
    lower("update", jax.jit(phase.update), state, frozen, steps, demos)
    judge = evaluate.make_evaluate(env, _deployed(nets, config, spec, env))
    lower("evaluate", judge, key, frozen, gate)


def _rehearsal(config, spec, steps):
    """Demonstrations that the gate's model or critic goes on learning from: a standstill."""
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), steps)
    data = from_rollout(blank)
    return to_risk_data(data) if spec.gate == "critic" else to_windows(data, config.world_model)[0]


def _deployed(nets, config, spec, env):
    """A method's controller as evaluation uses it."""
    controller = behaviour.make_controller(nets, config, spec, explore=False)

    def controller_of(learnt, gate):
        return behaviour.start_memory(config, spec, env), controller(learnt, gate)

    return controller_of
