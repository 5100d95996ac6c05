"""Every program of a run lowers for CUDA, on a machine without a GPU: `pytest -m slow`.

A program that lowers has no host callback, no float64 and no call that only a CPU knows. What XLA
makes of it on a GPU, and how fast it is there, only a GPU can tell.
"""

import collections
import re

import jax
import pytest
from jax import export

from envs_mjx import TASKS, BatchEnv, make
from envs_mjx.physics import backends
from experiments.runs.presets import preset
from farl_jax.agent import Networks
from farl_jax.measure import evaluate
from farl_jax.methods import METHODS
from farl_jax.online.loop import make_online
from farl_jax.safety import behaviour
from farl_jax.safety.gate import Gate

GPU_CALLS = {"cusolver_potrf_ffi", "cu_threefry2x32_ffi"}
"""Custom calls that jaxlib implements on CUDA: Cholesky factors, random bits."""
LARGEST_MODULE = 2_000_000
"""Bytes of a serialised program. The largest, a rollout, has about 500,000."""


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Programs are built as where a GPU is the default device; lowering needs none."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    backends.cpu_compiler_options.cache_clear()
    yield
    backends.cpu_compiler_options.cache_clear()


def lower(function, *args) -> collections.Counter:
    """Lower for CUDA, check what must hold, and count the operations."""
    exported = export.export(function, platforms=["cuda"])(*args)
    text = exported.mlir_module()
    calls = set(re.findall(r"custom_call @(\w+)", text))
    calls |= set(re.findall(r'call_target_name = "([^"]+)"', text))
    assert not {call for call in calls if "callback" in call}
    assert calls <= GPU_CALLS
    assert not re.search(r"tensor<([0-9]+x)*f64>", text)
    assert len(exported.mlir_module_serialized) < LARGEST_MODULE
    return collections.Counter(re.findall(r"stablehlo\.(\w+)", text))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", TASKS)
def test_reset_and_step_of_a_task(task, as_on_a_gpu):
    env = BatchEnv(make(task, "mjx"), 64)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((64, env.action_size), "float32")
    assert lower(jax.jit(env.reset), key)["while"] == 0
    loops = lower(jax.jit(env.step), state, action, key)["while"]
    assert loops <= 5  # substeps; in each the solver and its line search, and what a task adds


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("method", METHODS)
def test_all_programs_of_a_method(method, as_on_a_gpu):
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
    lower(phase.init, frozen, key, *values)
    _, steps = jax.eval_shape(phase.collect, state, frozen, gate)
    lower(phase.collect, state, frozen, gate)
    lower(jax.jit(phase.update), state, frozen, steps)
    judge = evaluate.make_evaluate(env, _deployed(nets, config, spec, env))
    lower(judge, key, frozen, gate)


def _deployed(nets, config, spec, env):
    """A method's controller as evaluation uses it."""
    controller = behaviour.make_controller(nets, config, spec, explore=False)

    def controller_of(learnt, gate):
        return behaviour.start_memory(config, spec, env), controller(learnt, gate)

    return controller_of
