"""The table of fifty episodes on one robot: ours, and the paper's real robot where it has numbers.

A failing pair is a step with C(s, a) = 1, as the paper counts its real robot's failures.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from experiments.comparison import Interval, interval, mean_reduction, paired
from experiments.known import shown
from farl_jax.methods import BASELINE, METHODS, OURS

Row = Mapping[str, Any]


class Line(NamedTuple):
    """One method on one task: means over its seeds, with 95 % intervals over seeds."""

    method: str
    seeds: int
    pairs: float
    """Failing state-action pairs of a run."""
    fewer: float | None
    """Reduction of all pairs against the baseline on the same seeds, in percent."""
    fewer_interval: Interval | None
    paper_pairs: float | None
    failing: float
    """Failing episodes of a run."""
    episodes: float
    recovered: float
    """Steps of a run at which recovery acted."""
    steps: float
    first: float
    """Normalised return before and after, with the method's gate."""
    last: float
    gain: float
    gain_interval: Interval | None


HEADS = (
    *("method", "seeds", "failing pairs", "fewer (95 %)", "paper", "failing episodes"),
    *("recovery acts in", "return", "gain (95 %)"),
)


def lines(methods: Mapping[str, Sequence[Row]], paper: Mapping[str, float]) -> list[Line]:
    """One line per method with rows, in the order of `METHODS`.

    Args:
        methods: method -> rows of one task, the baseline's among them.
        paper: method -> the paper's failing pairs; empty if it lacks the task.
    """
    order = [method for method in METHODS if methods.get(method)]
    return [_line(method, methods, paper.get(method)) for method in order]


def _line(method: str, methods: Mapping[str, Sequence[Row]], paper: float | None) -> Line:
    rows, base = list(methods[method]), list(methods[BASELINE])
    mean = lambda name: float(np.mean([row[name] for row in rows]))
    gains = [row["final_return"] - row["initial_return"] for row in rows]
    fewer = limits = None
    if method != BASELINE:
        found = paired(base, rows, "failing_steps")
        fewer = found["reduction_percent"]
        limits = found["reduction_interval"] if len(rows) > 1 else None
    return Line(
        method=method,
        seeds=len(rows),
        pairs=mean("failing_steps"),
        fewer=fewer,
        fewer_interval=None if limits is None else tuple(limits),
        paper_pairs=paper,
        failing=mean("failure_episodes"),
        episodes=mean("episodes"),
        recovered=mean("recovered_steps"),
        steps=mean("online_steps"),
        first=mean("initial_return"),
        last=mean("final_return"),
        gain=float(np.mean(gains)),
        gain_interval=interval(gains),
    )


def cells(line: Line) -> tuple[str, ...]:
    """A line as text, one for each of `HEADS`."""
    return (
        line.method,
        f"{line.seeds}",
        f"{line.pairs:,.1f}",
        "" if line.fewer is None else f"{line.fewer:.0f} %{_span(line.fewer_interval, '.0f')}",
        shown(line.paper_pairs, ",.0f"),
        f"{line.failing:.1f} of {line.episodes:.0f}",
        f"{line.recovered / max(line.steps, 1.0):.1%} of {line.steps:,.0f} steps",
        f"{line.first:.1f} -> {line.last:.1f}",
        f"{line.gain:+.1f}{_span(line.gain_interval, '+.1f')}",
    )


def _span(limits: Interval | None, form: str) -> str:
    return "" if limits is None else " ({} to {})".format(*(format(x, form) for x in limits))


def tables(
    by_task: dict[str, dict[str, list[Row]]], paper: Mapping[str, Any]
) -> Iterator[Table | str]:
    """A table of each task, and FARL's mean over tasks, beside the paper's."""
    for task, methods in by_task.items():
        yield console_table(task, lines(methods, paper["failing_pairs"].get(task, {})))
    yield conclusion(by_task, paper)


def console_table(task: str, found: Iterable[Line]) -> Table:
    """The lines of one task for a terminal."""
    table = Table(title=f"{task}, a run's means", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for head in HEADS:
        table.add_column(head, justify="left" if head == "method" else "right")
    for line in found:
        table.add_row(*cells(line))
    return table


def conclusion(by_task: dict[str, dict[str, list[Row]]], paper: Mapping[str, Any]) -> str:
    """FARL's mean reduction of failing pairs and mean gain over tasks, beside the paper's."""
    found = mean_reduction(by_task, "failing_steps")
    low, mean, high = (shown(x, ".1f") for x in found or (None,) * 3)
    gains = [_line(OURS, methods, None).gain for methods in by_task.values()]
    theirs = [100.0 * (1.0 - n[OURS] / n[BASELINE]) for n in paper["failing_pairs"].values()]
    return (
        f"failing pairs: {mean} % fewer (95 % over seeds: {low} to {high}), mean over "
        f"{len(by_task)} task(s); paper, on its robot: {np.mean(theirs):.1f} %. Return: "
        f"{np.mean(gains):+.1f} points; paper: {paper['performance_gain_percent']} %"
    )
