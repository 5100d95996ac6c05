"""Several seeds of one method in step: every array has a leading axis of seeds, [S, ...].

Each function of the online phase is lifted over that axis by `jax.vmap`, from outside its jit: what
was one compiled program for a seed is one for all of them, with its own compiler options and
donation, and the simulator's host callback sees all S x N environments in one call. A single seed
has no such axis and its functions are left as they are.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax import devices
from farl_jax.online.loop import OnlinePhase

PyTree = Any

COPIES = 3.0
"""Peak memory of a seed over the bytes of what it must hold (see `seed_bytes`)."""
SHARE = 0.8
"""How much of the free memory the seeds may fill."""


@dataclass(frozen=True)
class Seeds:
    """How many seeds share one program, and with that how their arrays lie."""

    number: int

    def join(self, trees: Sequence[PyTree]) -> PyTree:
        """One tree of all seeds' trees: leaves [...] -> [S, ...]; a single one as it is.

        Leaves that are not equally long are filled with zeros at the end of axis 0, as data of a
        seed's own demonstrations may be; their reader knows the true length.
        """
        return trees[0] if self.number == 1 else _join(list(trees))

    def split(self, tree: PyTree) -> list[PyTree]:
        """Each seed's own tree, leaves [S, ...] -> [...], in arrays of its own."""
        if self.number == 1:
            return [tree]
        if all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree)):
            return [jax.tree.map(lambda leaf, s=s: leaf[s], tree) for s in range(self.number)]
        return [_part(tree, s) for s in range(self.number)]

    def lift(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """The same function of joined arguments."""
        if self.number == 1:
            return function
        return jax.vmap(function, spmd_axis_name=devices.SEEDS if devices.active() else None)

    def lift_phase(self, phase: OnlinePhase) -> OnlinePhase:
        """The same phase of joined states; `steps_per_update` stays that of one seed."""
        names = ("init", "collect", "update") + (("adapt",) if phase.adapt else ())
        return dataclasses.replace(phase, **{n: self.lift(getattr(phase, n)) for n in names})


@jax.jit
def _join(trees: list[PyTree]) -> PyTree:
    def stack(*leaves: jax.Array) -> jax.Array:
        if leaves[0].ndim == 0:
            return jnp.stack(leaves)
        longest = max(len(leaf) for leaf in leaves)
        return jnp.stack([_fill(leaf, longest) for leaf in leaves])

    return jax.tree.map(stack, *trees)


def _fill(leaf: jax.Array, length: int) -> jax.Array:
    """Zeros at the end of axis 0, where it is shorter than `length`."""
    if len(leaf) == length:
        return leaf
    return jnp.pad(leaf, [(0, length - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


@jax.jit
def _part(tree: PyTree, seed: jax.Array) -> PyTree:
    return jax.tree.map(partial(jax.lax.dynamic_index_in_dim, index=seed, keepdims=False), tree)


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all leaves of arrays, or of what `jax.eval_shape` says they will be."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def seed_bytes(state: PyTree, inputs: PyTree, rollout: PyTree, longest: float = 1.0) -> int:
    """Memory that one seed adds: `COPIES` times its state, its inputs and its longest rollout.

    `inputs` are what it reads and keeps: offline result, gate, rehearsal. An evaluation's rollout
    is `longest` times as long as `rollout`. Around a program's end its results lie beside its
    arguments and what it computed in between.
    """
    return int(COPIES * (tree_bytes(state) + tree_bytes(inputs) + longest * tree_bytes(rollout)))


def group_sizes(number: int, per_seed: int, free: int | None) -> list[int]:
    """Sizes of the fewest groups of seeds that fit into `SHARE` of the free memory, one by one.

    They differ by one seed at most. A single seed always is a group; `free` None means unknown, and
    then all are one.
    """
    fitting = number if free is None else max(1, int(SHARE * free) // max(per_seed, 1))
    groups = -(-number // min(fitting, number))
    return [number // groups + (i < number % groups) for i in range(groups)]
