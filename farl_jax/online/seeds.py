"""Several seeds of one method train together: arrays have a leading axis of seeds, [S, ...].

`jax.vmap` lifts each jitted function of the online phase over that axis. One compiled program then
serves all seeds, with the same compiler options and donation. The simulator's host callback gets
all S x N environments in one call. A single seed has no such axis; its functions stay unchanged.
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
"""Peak memory of a seed divided by the bytes of its arrays (see `seed_bytes`)."""
SHARE = 0.8
"""Largest share of the free memory that seeds may use."""


@dataclass(frozen=True)
class Seeds:
    """Number of seeds in one program, and the layout of their arrays."""

    number: int

    def join(self, trees: Sequence[PyTree]) -> PyTree:
        """Stack the seeds' trees: leaves [...] -> [S, ...]. A single tree stays unchanged.

        Leaves of unequal length, such as each seed's demonstrations, are padded with zeros at the
        end of axis 0. Their reader knows the true length.
        """
        return trees[0] if self.number == 1 else _join(list(trees))

    def split(self, tree: PyTree) -> list[PyTree]:
        """Each seed's tree: leaves [S, ...] -> [...]."""
        if self.number == 1:
            return [tree]
        if all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(tree)):
            return [jax.tree.map(lambda leaf, s=s: leaf[s], tree) for s in range(self.number)]
        return [_part(tree, s) for s in range(self.number)]

    def lift(self, function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """The function of joined arguments."""
        if self.number == 1:
            return function
        return jax.vmap(function, spmd_axis_name=devices.SEEDS if devices.active() else None)

    def lift_phase(self, phase: OnlinePhase) -> OnlinePhase:
        """The phase of joined states. `steps_per_update` still counts one seed's steps."""
        names = ("init", "collect", "update")
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
    """`leaf` padded with zeros to `length` at the end of axis 0."""
    if len(leaf) == length:
        return leaf
    return jnp.pad(leaf, [(0, length - len(leaf))] + [(0, 0)] * (leaf.ndim - 1))


@jax.jit
def _part(tree: PyTree, seed: jax.Array) -> PyTree:
    return jax.tree.map(partial(jax.lax.dynamic_index_in_dim, index=seed, keepdims=False), tree)


def tree_bytes(tree: PyTree) -> int:
    """Bytes of all leaves: arrays, or shapes from `jax.eval_shape`."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def seed_bytes(resident: PyTree, rollout: PyTree, longest: float = 1.0) -> int:
    """Peak bytes of one seed, roughly: `COPIES` times its resident arrays and longest rollout.

    `resident` are state, offline result, gate and rehearsal. An evaluation's rollout is `longest`
    times as long as `rollout`. The factor is needed because at a program's end arguments,
    intermediate values and results are in memory together. `farl_jax.online.memory` knows better,
    but it must compile.
    """
    return int(COPIES * (tree_bytes(resident) + longest * tree_bytes(rollout)))


def group_sizes(number: int, needs: Callable[[int], int], free: int | None) -> list[int]:
    """Sizes of the fewest groups of seeds such that each fits into `SHARE` of the free memory.

    `needs(S)` are the bytes of S seeds together, which grow with S. Groups run one after the other
    and differ by one seed at most. One seed is always allowed. If `free` is None (unknown), all
    seeds are one group.
    """
    fitting = number
    while free is not None and fitting > 1 and needs(fitting) > SHARE * free:
        fitting -= 1
    groups = -(-number // fitting)
    return [number // groups + (i < number % groups) for i in range(groups)]
