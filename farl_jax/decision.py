"""The whole decision of a method as one pure function of an observation, and as programs.

What training runs on N environments (`safety.behaviour`) is traced for one observation, with the
weights inside: normaliser, task policy, risk, recovery, and the gate's memory. Nothing is written
a second time, so that a program decides as evaluation does.
"""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig
from farl_jax.deploy import INPUT, NEXT, OUTPUTS, DeployError, Program, Variable
from farl_jax.methods import Method
from farl_jax.safety import behaviour
from farl_jax.safety.gate import Gate

PLATFORMS = ("cpu", "cuda")
STEP = "step"
"""The memory variable that counts decisions, where a recovery draws noise."""
SEED = 0
"""Of that noise: decision number i takes `fold_in(key(SEED), i)`."""


@dataclass(frozen=True)
class _One:
    """A single environment, as `start_memory` asks for it."""

    action_size: int
    num_envs: int = 1


@dataclass(frozen=True)
class _Seen:
    """What a controller reads of a state; an episode begins with a fresh memory, never here."""

    obs: jax.Array  # [1, D]
    step_count: jax.Array  # [1] i32


@dataclass(frozen=True)
class Decide:
    """A method's deterministic decision on one observation, for `jit` or `export`."""

    program: Program
    memory: list[Variable]
    observation_size: int

    @property
    def arguments(self) -> list[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of (obs, *memory)."""
        obs = jax.ShapeDtypeStruct((self.observation_size,), jnp.float32)
        return [obs, *(jax.ShapeDtypeStruct(v["shape"], v["dtype"]) for v in self.memory)]


def make_decide(
    nets: Networks, config: FarlConfig, method: Method, learnt: Agent, gate: Gate
) -> Decide:
    """The decision of `method` as evaluation makes it: mean actions, behind the gate.

    A plan's noise (`mppi`) comes from a key of the decision's number, and one place suffices for
    one environment.
    """
    config = dataclasses.replace(config, mppi=dataclasses.replace(config.mppi, slots=1))
    controller = behaviour.make_controller(nets, config, method, explore=False)(learnt, gate)
    draws = method.gated and method.recovery == "mppi"
    start: Any = behaviour.start_memory(config, method, _One(nets.sizes[1]))
    start = start if method.gated else None
    leaves, structure = jax.tree.flatten(start)

    def program(obs: jax.Array, *values: jax.Array) -> tuple[jax.Array, ...]:
        count = values[0] if draws else jnp.zeros((), jnp.uint32)
        rows = [value[None] for value in values[draws:]]
        state = _Seen(obs[None], jnp.ones(1, jnp.int32))
        key = jax.random.fold_in(jax.random.key(SEED), count)
        memory, chosen = controller(jax.tree.unflatten(structure, rows), state, key)
        after = [leaf[0] for leaf in jax.tree.leaves(memory)]
        counted = [count + 1] if draws else []
        outcome = chosen.action[0], chosen.horizon_cost[0], chosen.intervened[0]
        return (*outcome, *counted, *after)

    counter = [_variable(STEP, np.zeros((), np.uint32))] if draws else []
    named = zip(_names_of(start), leaves, strict=True)
    memory = counter + [_variable(name, np.asarray(leaf[0])) for name, leaf in named]
    return Decide(program, memory, nets.sizes[0])


def to_stablehlo(decide: Decide) -> bytes:
    """The decision as one serialised program for `PLATFORMS`, weights inside (`jax.export`).

    It names no source files: they are this machine's.
    """
    from jax import export

    kept = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        lowered = export.export(jax.jit(decide.program), platforms=PLATFORMS)(*decide.arguments)
    finally:
        jax.config.update("jax_traceback_in_locations_limit", kept)
    return bytes(lowered.serialize())


def to_onnx(decide: Decide, name: str) -> bytes:
    """The decision as an ONNX model, weights inside; by jax2onnx, from the traced primitives.

    Traced first: jax2onnx's own patches of Flax do not know a stack of networks (`nn.vmap`).

    Raises:
        DeployError: jax2onnx is not installed, or does not know one of the primitives.
    """
    from jax.extend.core import jaxpr_as_fun

    traced = jaxpr_as_fun(jax.make_jaxpr(decide.program)(*decide.arguments))
    memory = [variable["name"] for variable in decide.memory]
    convert = _converter()
    try:
        model = convert(
            traced,
            decide.arguments,
            model_name=name,
            input_names=[INPUT, *memory],
            output_names=[*OUTPUTS, *(NEXT + name for name in memory)],
        )
    except Exception as error:  # of many types
        reason = " ".join(str(error).split())[:200]
        raise DeployError(
            f"{name} cannot be written as ONNX, jax2onnx says: {reason}; use --formats jax"
        ) from error
    return model.SerializeToString()


def _converter() -> Callable[..., Any]:
    """`jax2onnx.to_onnx`, taught that jax.lax has a primitive for `jnp.stack` since 0.10."""
    try:
        import jax2onnx
        from jax2onnx.plugins.plugin_system import PLUGIN_REGISTRY, import_all_plugins
    except ImportError as error:
        raise DeployError(
            "ONNX needs jax2onnx: pip install 'farl-jax[onnx]', or use --formats jax"
        ) from error
    logging.getLogger("jax2onnx").setLevel(logging.ERROR)  # its plugins for other libraries
    import_all_plugins()
    PLUGIN_REGISTRY.setdefault("stack", PLUGIN_REGISTRY["jax.numpy.stack"])
    return jax2onnx.to_onnx


def _names_of(tree: Any) -> list[str]:
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in flat]


def _variable(name: str, start: np.ndarray) -> Variable:
    values = [value.item() for value in start.ravel()]
    return {"name": name, "dtype": start.dtype.name, "shape": list(start.shape), "start": values}
