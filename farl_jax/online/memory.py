"""Memory of seeds that train together, from XLA's own account of the compiled programs.

XLA says of a compiled program how many bytes its arguments, results and intermediate values take,
on the device for which it was compiled. All of them grow by a constant with each further seed, so
two compiled sizes give the bytes of any number: `fixed + per_seed S`.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from farl_jax.online.seeds import Seeds, tree_bytes

PROBES = (2, 4)
"""Numbers of seeds that are compiled. One seed alone is another program, with one axis less."""

PyTree = Any


class Line(NamedTuple):
    """Bytes of S seeds together: fixed + per_seed S."""

    fixed: float
    per_seed: float

    def at(self, seeds: int) -> int:
        """Return the bytes of `seeds` together."""
        return int(self.fixed + self.per_seed * seeds)


class Program(NamedTuple):
    """A function of one seed, and the shapes of its arguments (`jax.eval_shape`)."""

    function: Callable[..., PyTree]
    arguments: tuple[PyTree, ...]
    donates: bool
    """Whether its first argument's buffers become results."""
    compiler_options: dict[str, Any]


def line_through(sizes: tuple[int, int], totals: tuple[int, int]) -> Line:
    """Return the line through bytes measured at two numbers of seeds."""
    slope = (totals[1] - totals[0]) / (sizes[1] - sizes[0])
    return Line(totals[0] - slope * sizes[0], slope)


def measure(resident: PyTree, programs: Sequence[Program]) -> Line:
    """Compile all programs at `PROBES` seeds and return the line of their peaks.

    Args:
        resident: shapes of one seed's arrays that stay in memory while any program runs.
        programs: of one seed. They run one after the other.
    """
    return line_through(PROBES, tuple(peak_bytes(resident, programs, n) for n in PROBES))


def peak_bytes(resident: PyTree, programs: Sequence[Program], seeds: int) -> int:
    """Return the bytes in memory at the peak of the worst program of `seeds` together.

    These are the resident arrays, and what the program needs besides: its intermediate values, and
    results that take no donated buffer.
    """
    most = max(_besides(program, seeds) for program in programs)
    return seeds * tree_bytes(resident) + most


def _besides(program: Program, seeds: int) -> int:
    function = Seeds(seeds).lift(inspect.unwrap(program.function))  # its own `jit` is within ours
    joined = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((seeds, *leaf.shape), leaf.dtype) if seeds > 1 else leaf,
        program.arguments,
    )
    donated = (0,) if program.donates else ()
    lifted = jax.jit(
        lambda *args: function(*args),
        donate_argnums=donated,
        compiler_options=program.compiler_options,
    )
    used = lifted.lower(*joined).compile().memory_analysis()
    fresh = used.output_size_in_bytes - used.alias_size_in_bytes
    return fresh + used.temp_size_in_bytes
