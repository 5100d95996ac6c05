"""One program on several devices: seeds and environments are split, parameters are copied.

Inside `use(number)` JAX has an ambient mesh with two axes, SEEDS x ENVS. Arrays with a row for
each environment [N, ...] are split along ENVS, joined seeds [S, ...] along SEEDS, and all others
are copied. Each device steps its own rows of the physics (`BatchEnv`) and takes its rows of every
minibatch. The gradient is a mean over devices, so numbers equal those of one device up to rounding.
Outside `use`, every function here returns its argument unchanged.

Several processes (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID) run the same command
on the same files. Their devices form one mesh, and only the first process writes.
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
    """The work cannot be split over the present devices. The message is one line."""


def join_processes() -> None:
    """Join other processes if the environment names them. Call it before any array is made."""
    if _PROCESS[0] not in os.environ or jax.distributed.is_initialized():
        return
    try:
        number, index = (int(os.environ[name]) for name in _PROCESS[1:])
    except (KeyError, ValueError) as error:
        raise DeviceError(
            f"{_PROCESS[0]} is set, so {' and '.join(_PROCESS[1:])} must be numbers ({error})"
        ) from error
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(os.environ[_PROCESS[0]], number, index)
    _meet()


def _meet() -> None:
    """Let all devices communicate once. Later, gloo waits only 30 s for the slowest process."""
    everyone = Mesh(np.asarray(jax.devices()), (ENVS,), axis_types=(AxisType.Auto,))
    each = NamedSharding(everyone, PartitionSpec(ENVS))
    ones = jax.make_array_from_callback((everyone.size,), each, lambda _: np.ones(1, np.float32))
    ones.sum().block_until_ready()
    multihost_utils.sync_global_devices("joined")


def leads() -> bool:
    """Whether this process writes the files."""
    return jax.process_index() == 0


def path_of_first(path: Path) -> Path:
    """Return the first process's `path` in all processes, and wait for the first one."""
    if jax.process_count() == 1:
        return path
    name = np.frombuffer(os.fsencode(path).ljust(4096, b"\0"), np.uint8)
    return Path(os.fsdecode(multihost_utils.broadcast_one_to_all(name).tobytes().rstrip(b"\0")))


def grid(number: int, seeds: int = 1) -> tuple[int, int]:
    """(devices along SEEDS, devices along ENVS). SEEDS gets the most that divides the seeds."""
    shares = math.gcd(number, seeds)
    return shares, number // shares


def check(number: int, seeds: int, num_envs: int) -> None:
    """Refuse work that cannot be split evenly.

    Raises:
        DeviceError: too few devices, a process without work, or an uneven split.
    """
    present, processes = jax.device_count(), jax.process_count()
    if not 1 <= number <= present:
        raise DeviceError(
            f"--devices is {number}, but JAX sees {present} ({jax.default_backend()}). To try it "
            f"on a CPU, set XLA_FLAGS=--xla_force_host_platform_device_count={max(number, 1)}"
        )
    if processes > 1 and number < present:
        raise DeviceError(f"--devices must be {present} with {processes} processes; got {number}")
    if num_envs % grid(number, seeds)[1]:
        raise DeviceError(
            f"online.num_envs must be a multiple of {grid(number, seeds)[1]} "
            f"(--devices {number}, {seeds} seeds at once); got {num_envs}"
        )


def use(number: int, seeds: int = 1) -> AbstractContextManager:
    """Context in which work is split over the first `number` devices. 1 changes nothing."""
    if number == 1:
        return nullcontext()
    shape = grid(number, seeds)
    chosen = np.asarray(jax.devices()[:number]).reshape(shape)
    return jax.set_mesh(Mesh(chosen, (SEEDS, ENVS), axis_types=(AxisType.Auto, AxisType.Auto)))


def active() -> bool:
    """Whether there is a mesh."""
    return not jax.sharding.get_abstract_mesh().empty


def spread(tree: PyTree, axis: int = 0) -> PyTree:
    """Inside a program: split every leaf's `axis` along ENVS if it divides evenly."""
    if not active():
        return tree
    shares = jax.sharding.get_abstract_mesh().shape[ENVS]
    spec = PartitionSpec(*[None] * axis, ENVS)
    return jax.tree.map(
        lambda leaf: leaf if leaf.shape[axis] % shares else _constrain(leaf, spec), tree
    )


def settle(state: Any, rows: Sequence[str]) -> Any:
    """Inside a program: place a state the same way as between any two programs.

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
    """Copy a tree to all devices. Joined trees of several seeds are split along SEEDS."""
    return _put(tree, PartitionSpec(SEEDS) if seeds > 1 else PartitionSpec())


def place_state(state: Any, rows: Sequence[str], seeds: int = 1) -> Any:
    """Place a state, or the joined state of several seeds, as `settle` does."""
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
    """Copy a tree whole to every device, so that any process can read or save it."""
    return _put(tree, PartitionSpec())


def fetch(tree: PyTree) -> PyTree:
    """The tree as NumPy arrays."""
    return jax.device_get(gather(tree))
