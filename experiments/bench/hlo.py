"""Kernels, floating-point operations and bytes of a compiled program, from XLA's own text of it.

XLA's cost analysis counts the body of a loop once. Here it counts as often as the loop runs: XLA
writes the number beside a loop where it knows it, and the caller gives it for all others.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_HEADER = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|branch_computations)=\{?([^}\s]*%[^},]*)")
FREE = frozenset(
    {
        *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "iota"),
        *("after-all", "partition-id"),
    }
)
"""Operations without a kernel."""
MOVES = frozenset(
    {
        *("broadcast", "reshape", "transpose", "copy", "slice", "concatenate", "pad", "reverse"),
        *("gather", "scatter", "dynamic-slice", "dynamic-update-slice", "sort"),
        *("convert", "select", "bitcast-convert", "custom-call"),
    }
)
"""Operations that only move values, or whose arithmetic is not counted."""
_READS_PART = ("dynamic-slice", "slice", "gather")


class Cost(NamedTuple):
    """What one call of a program costs."""

    kernels: float = 0.0
    """Operations that a GPU would launch."""
    flop: float = 0.0
    bytes: float = 0.0
    """Read and written by all kernels, without caches."""
    unknown_loops: int = 0
    """Loops in its text whose number of turns XLA does not know."""

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """Return the cost of both, the other one `times` times."""
        loops = self.unknown_loops + other.unknown_loops
        return Cost(*(a + times * b for a, b in zip(self[:3], other[:3], strict=True)), loops)


@dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    op: str
    shape: str
    operands: tuple[str, ...]
    attributes: str

    @property
    def called(self) -> list[str]:
        """Names of the computations that it calls."""
        found = (part for group in _CALLED.findall(self.attributes) for part in group.split(","))
        return [part.strip().lstrip("%") for part in found]

    @property
    def elements(self) -> int:
        """Elements of its result."""
        return sum(math.prod(size) for _, size in arrays(self.shape))

    @property
    def bytes(self) -> int:
        """Bytes of its result."""
        return sum(width(kind) * math.prod(size) for kind, size in arrays(self.shape))


Computations = Mapping[str, Sequence[Instruction]]


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return (element type, dimensions) of each array in a shape's text."""
    return [
        (kind, tuple(int(n) for n in size.split(",") if n)) for kind, size in _ARRAY.findall(shape)
    ]


def width(kind: str) -> float:
    """Return bytes of an element, such as f32."""
    bits = re.search(r"\d+", kind)
    return int(bits.group()) / 8 if bits else 1


def read(text: str) -> tuple[Computations, str]:
    """Return (computations by name, name of the program's entry) of `compiled.as_text()`."""
    found: dict[str, list[Instruction]] = {}
    entry, own = "", []
    for line in text.splitlines():
        if header := _HEADER.match(line):
            own = found.setdefault(header.group(1), [])
            entry = header.group(1) if line.startswith("ENTRY") else entry
        elif " = " in line and line.startswith("  "):
            own.append(_instruction(line))
    return found, entry


def _instruction(line: str) -> Instruction:
    name, rest = line.strip().removeprefix("ROOT ").split(" = ", 1)
    end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].strip()
    opened = rest.index("(")
    closed = opened + _closing(rest[opened:])
    operands = re.findall(r"%([\w.\-]+)", rest[opened:closed])
    return Instruction(name.lstrip("%"), rest[:opened], shape, tuple(operands), rest[closed + 1 :])


def _closing(text: str) -> int:
    """Position of the parenthesis that closes the first one."""
    depth = 0
    for place, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return place
    raise ValueError(f"unbalanced: {text[:80]}")


def cost(text: str, turns: float) -> Cost:
    """Return the cost of one call of a program.

    Args:
        text: `compiled.as_text()`.
        turns: of each loop whose number of turns XLA does not know.
    """
    computations, entry = read(text)
    return _cost(computations, entry, turns)


def _cost(computations: Computations, name: str, turns: float) -> Cost:
    total = Cost()
    known = {one.name: one for one in computations[name]}
    for one in computations[name]:
        if one.op == "while":
            told = _TRIPS.search(one.attributes)
            times = float(told.group(1)) if told else turns
            for called in one.called:
                total = total.plus(_cost(computations, called, turns), times)
            total = total.plus(Cost(unknown_loops=int(told is None)))
        elif one.op in ("call", "conditional", "async-start"):
            for called in one.called:
                total = total.plus(_cost(computations, called, turns))
        elif one.op not in FREE:
            total = total.plus(_kernel(computations, known, one))
    return total


def _kernel(computations: Computations, known: Mapping[str, Instruction], one: Instruction) -> Cost:
    """Cost of one instruction that is launched on its own."""
    inner = computations[one.called[0]] if one.op == "fusion" else []
    if not inner:
        return Cost(1.0, _flop(known, one), one.bytes + _read_bytes(known, one))
    own = {i.name: i for i in inner}
    read_bytes = 0.0
    for parameter in (i for i in inner if i.op == "parameter"):
        users = [i for i in inner if parameter.name in i.operands]
        partly = users and all(i.op in _READS_PART for i in users)
        read_bytes += sum(i.bytes for i in users) if partly else parameter.bytes
    root = inner[-1]
    in_place = root.op == "dynamic-update-slice"
    written = own[root.operands[1]].bytes if in_place else one.bytes
    read_bytes -= root.bytes - written if in_place and root.operands[0] in own else 0.0
    return Cost(1.0, sum(_flop(own, i) for i in inner), written + max(read_bytes, 0.0))


def _read_bytes(known: Mapping[str, Instruction], one: Instruction) -> float:
    if one.op in _READS_PART:
        return one.bytes
    return sum(known[name].bytes for name in one.operands if name in known)


def _flop(known: Mapping[str, Instruction], one: Instruction) -> float:
    """Return the operations of one instruction; 1 for each element of an elementwise one."""
    if one.op == "dot":
        (_, size), *_ = arrays(known[one.operands[0]].shape)
        told = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", one.attributes)
        axes = [int(n) for n in told.group(1).split(",") if n] if told else []
        return 2.0 * one.elements * math.prod(size[axis] for axis in axes)
    if one.op in ("reduce", "reduce-window"):
        return float(known[one.operands[0]].elements)
    free = one.op in FREE or one.op in MOVES
    return 0.0 if free or not re.search(r"\bf\d", one.shape) else float(one.elements)
