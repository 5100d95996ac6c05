"""Many devices, one program: seeds and environments lie in shares, parameters everywhere.

Inside `use(number)` JAX has an ambient mesh of two axes, SEEDS x ENVS, and the functions of the
online phase compile to one program for all its devices: what there is of each environment,
[N, ...], is cut along ENVS, joined seeds [S, ...] along SEEDS, and the rest is copied. Each device
steps its own rows of the physics (`BatchEnv`) and takes its rows of every minibatch; the gradient's
mean over a minibatch is then a sum over devices, in another order, so numbers equal one device's up
to rounding. Outside, every function here gives back what it was given, and a program of one device
is what it always was.

Several processes (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID) run the same command
on the same files; their devices are one mesh, and the first of them alone writes.
"""

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

PyTree = Any

SEEDS, ENVS = "seeds", "envs"
_PROCESS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


class DeviceError(ValueError):
    """What was asked for cannot be spread over the devices that there are; one line."""


def join_processes() -> None:
    """Become one of several processes, if the environment says so; before any array is made."""
    if _PROCESS[0] not in os.environ or jax.distributed.is_initialized():
        return
    try:
        number, index = (int(os.environ[name]) for name in _PROCESS[1:])
    except (KeyError, ValueError) as error:
        raise DeviceError(f"{_PROCESS[0]} is set, so {error} must be set to a number") from error
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(os.environ[_PROCESS[0]], number, index)
    _meet()


def _meet() -> None:
    """Let all devices talk once: later, gloo would give the slowest process no more than 30 s."""
    everyone = Mesh(np.asarray(jax.devices()), (ENVS,), axis_types=(AxisType.Auto,))
    each = NamedSharding(everyone, PartitionSpec(ENVS))
    ones = jax.make_array_from_callback((everyone.size,), each, lambda _: np.ones(1, np.float32))
    ones.sum().block_until_ready()
    multihost_utils.sync_global_devices("joined")


def leads() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def path_of_first(path: Path) -> Path:
    """What the first process has as `path`, known to all once the first has come here."""
    if jax.process_count() == 1:
        return path
    name = np.frombuffer(os.fsencode(path).ljust(4096, b"\0"), np.uint8)
    return Path(os.fsdecode(multihost_utils.broadcast_one_to_all(name).tobytes().rstrip(b"\0")))


def grid(number: int, seeds: int = 1) -> tuple[int, int]:
    """(devices along SEEDS, along ENVS): as many shares of the seeds as come out even."""
    shares = math.gcd(number, seeds)
    return shares, number // shares


def check(number: int, seeds: int, num_envs: int) -> None:
    """Refuse what cannot be spread.

    Raises:
        DeviceError: fewer devices, a process left out, or environments that do not come out even.
    """
    present, processes = jax.device_count(), jax.process_count()
    if not 1 <= number <= present:
        raise DeviceError(
            f"--devices is {number}, and JAX sees {present} ({jax.default_backend()}); for a trial "
            f"on a CPU set XLA_FLAGS=--xla_force_host_platform_device_count={max(number, 1)}"
        )
    if processes > 1 and number < present:
        raise DeviceError(f"--devices is {number}: {processes} processes use all {present} devices")
    if num_envs % grid(number, seeds)[1]:
        raise DeviceError(
            f"online.num_envs is {num_envs}: not to be divided among {grid(number, seeds)[1]} "
            f"devices (--devices {number}, {seeds} seeds at once)"
        )


def use(number: int, seeds: int = 1) -> AbstractContextManager:
    """Spread what is done inside over the first `number` devices; 1 changes nothing."""
    if number == 1:
        return nullcontext()
    shape = grid(number, seeds)
    chosen = np.asarray(jax.devices()[:number]).reshape(shape)
    return jax.set_mesh(Mesh(chosen, (SEEDS, ENVS), axis_types=(AxisType.Auto, AxisType.Auto)))


def active() -> bool:
    """Whether there is a mesh."""
    return not jax.sharding.get_abstract_mesh().empty


def spread(tree: PyTree, axis: int = 0) -> PyTree:
    """Inside a program: cut every leaf's `axis` along ENVS, where it comes out even."""
    if not active():
        return tree
    shares = jax.sharding.get_abstract_mesh().shape[ENVS]
    spec = PartitionSpec(*[None] * axis, ENVS)
    return jax.tree.map(
        lambda leaf: leaf if leaf.shape[axis] % shares else _constrain(leaf, spec), tree
    )


def settle(state: Any, rows: Sequence[str]) -> Any:
    """Inside a program: a state as it lies between two programs, the same every time.

    The fields named in `rows` have a row for each environment.
    """
    if not active():
        return state
    spreads = {name: spread(getattr(state, name)) for name in rows}
    everywhere = jax.tree.map(lambda leaf: _constrain(leaf, PartitionSpec()), state)
    return everywhere.replace(**spreads)


def _constrain(leaf: jax.Array, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(leaf, spec)


def place(tree: PyTree, seeds: int = 1) -> PyTree:
    """Copy a tree onto all devices; joined ones of several seeds in shares along SEEDS."""
    return _put(tree, PartitionSpec(SEEDS) if seeds > 1 else PartitionSpec())


def place_state(state: Any, rows: Sequence[str], seeds: int = 1) -> Any:
    """A state, or several seeds' joined, as `settle` leaves it."""
    if not active():
        return state
    spec = PartitionSpec(SEEDS, ENVS) if seeds > 1 else PartitionSpec(ENVS)
    placed = {name: _put(getattr(state, name), spec) for name in rows}
    others = place(state.replace(**dict.fromkeys(rows)), seeds)
    return others.replace(**placed)


def _put(tree: PyTree, spec: PartitionSpec) -> PyTree:
    if not active():
        return tree
    sharding = NamedSharding(jax.sharding.get_mesh(), spec)
    return jax.tree.map(lambda leaf: jax.device_put(leaf, sharding), tree)


def gather(tree: PyTree) -> PyTree:
    """Whole copies everywhere, so that any one process can read or save them."""
    return _put(tree, PartitionSpec())


def fetch(tree: PyTree) -> PyTree:
    """The tree as NumPy arrays."""
    return jax.device_get(gather(tree))
