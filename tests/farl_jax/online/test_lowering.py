"""Every program of a run lowers for CUDA, on a machine without a GPU: `make lowering`.

A program that lowers has no host callback, no float64 and no call that only a CPU knows. Its size
and its loops are stated in `PROGRAMS` (`pytest -s` prints them). What XLA makes of it on a GPU, and
how fast it is there, only a GPU can tell.
"""

import collections
import functools
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
STEPPING = ("step", "collect", "evaluate")
"""Programs with physics."""


@pytest.fixture(scope="module")
def as_on_a_gpu():
    """Programs are built as where a GPU is the default device; lowering needs none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "gpu")
        backends.cpu_compiler_options.cache_clear()
        yield
    backends.cpu_compiler_options.cache_clear()


@pytest.fixture(scope="module")
def batch_of(as_on_a_gpu):
    """`batch_of(task)`: its environments as in the smoke preset, lowered once for all tests."""
    return functools.cache(lambda task: Lowered(make(task, "mjx"), preset("smoke")))


class Lowered(BatchEnv):
    """Environments whose step is lowered at once. Programs that step them take in its module.

    Physics is most of what there is to trace and lower. All methods have it in common.
    """

    def __init__(self, env, config):
        super().__init__(env, config.online.num_envs)
        key = jax.eval_shape(lambda: jax.random.key(0))
        state = jax.eval_shape(self.reset, key)
        action = jax.ShapeDtypeStruct((self.num_envs, self.action_size), "float32")
        self.lowered = lower(jax.jit(super().step), state, action, key)

    def step(self, state, action, key):
        return self.lowered.call(state, action, key)


def lower(function, *args) -> export.Exported:
    """Lower for CUDA; JAX refuses host callbacks, and custom calls that it does not vouch for."""
    return export.export(function, platforms=["cuda"])(*args)


def check(name, exported) -> None:
    """Check what must hold of the program `name`, and print what it has."""
    text = exported.mlir_module()
    calls = set(re.findall(r"custom_call @(\w+)", text))
    calls |= set(re.findall(r'call_target_name = "([^"]+)"', text))
    assert not {call for call in calls if "callback" in call}
    assert calls <= GPU_CALLS
    if name in STEPPING:
        assert "cusolver_potrf_ffi" in calls  # the solver's: physics is a part of it
    assert not re.search(r"tensor<([0-9]+x)*f64>", text)
    found = collections.Counter(re.findall(r"stablehlo\.(\w+)", text))
    kilobytes = len(exported.mlir_module_serialized) // 1000
    loops, moves = found["while"], found["gather"] + found["scatter"]
    print(f"{name}: {kilobytes} kB, {loops} loops, {moves} gathers and scatters, calls {calls}")
    assert kilobytes <= PROGRAMS[name].kilobytes
    assert loops <= PROGRAMS[name].loops


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", TASKS)
def test_reset_and_step_of_a_task(task, batch_of):
    env = batch_of(task)
    check("reset", lower(jax.jit(env.reset), jax.eval_shape(lambda: jax.random.key(0))))
    check("step", env.lowered)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_native_physics_does_not_lower(device, monkeypatch):
    """It is a custom call of the CPU where that is the default device, and else a callback."""
    monkeypatch.setattr(jax, "default_backend", lambda: device)
    refused = r"custom calls|callbacks|lowering platform"
    with pytest.raises((ValueError, NotImplementedError), match=refused):
        Lowered(make("bounded_push", "native"), preset("smoke"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_all_programs_of_a_method(method, batch_of):
    task, spec = "bounded_push", METHODS[method]
    config, env = preset("smoke"), batch_of(task)
    nets = Networks.create(config, env.observation_size, env.action_size)
    phase = make_online(env, nets, config, spec)
    frozen, key = nets.abstract_agent(), jax.eval_shape(lambda: jax.random.key(0))
    critic = {"risk_critic": nets.abstract_risk_critic()} if spec.gate == "critic" else {}
    frozen = frozen.replace(**critic)
    values = (frozen.value,) if spec.constrained else ()
    gate = jax.eval_shape(lambda: Gate.create(config.safety.horizon, 0.95, 0.01))
    state = jax.eval_shape(phase.init, frozen, key, *values)
    check("init", lower(phase.init, frozen, key, *values))
    _, steps = jax.eval_shape(phase.collect, state, frozen, gate)
    check("collect", lower(phase.collect, state, frozen, gate))
    demos = _rehearsal(config, spec, steps) if phase.learns_risk else None
    check("update", lower(jax.jit(phase.update), state, frozen, steps, demos))
    judge = evaluate.make_evaluate(env, _deployed(nets, config, spec, env))
    check("evaluate", lower(judge, key, frozen, gate))


def _rehearsal(config, spec, steps):
    """Demonstrations that the gate's model or critic goes on learning from: a standstill."""
    blank = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), steps)
    data = from_rollout(blank)
    return to_risk_data(data) if spec.gate == "critic" else to_windows(data, config.world_model)


def _deployed(nets, config, spec, env):
    """A method's controller as evaluation uses it."""
    controller = behaviour.make_controller(nets, config, spec, explore=False)

    def controller_of(learnt, gate):
        return behaviour.start_memory(config, spec, env), controller(learnt, gate)

    return controller_of
