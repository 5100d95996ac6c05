"""The report's own figures: Pareto front, learning curves, failure causes, sweeps.

Colours and markers of a method are those of `figures.style`, everywhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from experiments.comparison import causes, pareto_front
from experiments.figures.drawing import new_figure, own_defaults
from experiments.figures.style import (
    STYLES,
    ByTask,
    Row,
    draw_lines,
    dress,
    footer,
    from_zero,
    in_order,
    look,
    series,
    thousands,
    title_of,
)
from experiments.report.sweeps import Across, SweepTable
from farl_jax.measure.intervals import bootstrap_interval

CAUSES = {
    "gate_silent": ("gate silent", "#AAAAAA"),
    "recovery_late": ("recovery too late", "#EEDD88"),
    "recovery_failed": ("recovery did not save it", "#EE8866"),
    "after_recovery": ("just after a recovery", "#77AADD"),
}
"""Pale colours (Tol), to differ from those of methods."""


@own_defaults()
def pareto_figure(by_task: ByTask, command: str) -> Any:
    """Final return against failure episodes, one panel per task. The front is a grey line.

    Points are means over seeds, crosses their 95 % bootstrap intervals. Limits and thresholds of
    one method have one colour, and their values as labels.
    """
    columns = min(2, len(by_task))
    lines = -(-len(by_task) // columns)
    figure = new_figure(5.4 * columns + 0.4, 4.0 * lines + 0.6)
    grid = figure.subplots(lines, columns, squeeze=False).ravel()
    for axis, (task, groups) in zip(grid, by_task.items(), strict=False):
        points = []
        for key in in_order(key for key, rows in groups.items() if rows):
            seeds = [[row[n] for row in groups[key]] for n in ("failure_episodes", "final_return")]
            points.append((float(np.mean(seeds[0])), float(np.mean(seeds[1]))))
            _point(axis, key, seeds)
        front = np.array([points[i] for i in pareto_front(points)])
        axis.step(*front.T, where="post", color="#cccccc", linewidth=5, alpha=0.6, zorder=1)
        counts = sorted({len(rows) for rows in groups.values() if rows})
        count = "/".join(str(n) for n in counts)
        heading = f"{task}, {count} seed{'' if counts == [1] else 's'}"
        dress(axis, heading, "failure episodes in training", "final normalised return")
        _widen(axis, max(x for x, _ in points))
    for axis in grid[len(by_task) :]:
        axis.remove()
    _legend(figure, grid[: len(by_task)])
    how = "up and to the left is better; crosses: 95 % bootstrap intervals over seeds; grey: Pareto"
    footer(figure, f"{how} front. {command}")
    return figure


@own_defaults()
def learning_figure(task: str, curves: Mapping[str, Sequence[Sequence[Row]]], command: str) -> Any:
    """Return, failures and recovered share against online steps.

    Args:
        task: for the heading.
        curves: by key, for each seed its `online` rows of metrics.jsonl.
        command: for the footer.
    """
    figure = new_figure(12.0, 4.1)
    returns, failures, recovered = figure.subplots(1, 3, sharex=True)
    for key in in_order(curves):
        place = list(in_order(curves)).index(key)
        style = {"color": look(key)["color"], "linestyle": STYLES[place % 4]}
        seeds = curves[key]
        label = f"{title_of(key)} ({len(seeds)})"
        draw_lines(returns, [series(rows, "eval_return") for rows in seeds], style, label)
        counts = [from_zero(series(rows, "failure_episodes")) for rows in seeds]
        draw_lines(failures, counts, style, label)
        draw_lines(recovered, [_recovered_share(rows) for rows in seeds], style, label)
    for axis, heading, ylabel in (
        (returns, f"{task}: evaluated return", "normalised return (0 random, 100 expert)"),
        (failures, "Failures so far", "failure episodes (cumulative)"),
        (recovered, "Recovery at work", "recovered steps, % of steps since last point"),
    ):
        dress(axis, heading, "online environment steps", ylabel)
        axis.set_xlim(left=0.0)
        axis.xaxis.set_major_formatter(thousands)
    for axis in (failures, recovered):
        axis.set_ylim(bottom=0.0)
    _legend(figure, [returns])
    footer(figure, f"thin: seeds (their number in brackets); thick: mean over seeds. {command}")
    return figure


@own_defaults()
def causes_figure(by_task: ByTask, command: str) -> Any:
    """Failure episodes with a gate, by the gate's state, one line per gated method."""
    totals = {
        (task, key): causes(groups[key])
        for task, groups in by_task.items()
        for key in in_order(groups)
        if causes(groups[key])
    }
    figure = new_figure(10.0, 0.42 * len(totals) + 1.7)
    axis = figure.subplots()
    for y, counts in enumerate(totals.values()):
        whole, left = max(sum(counts.values()), 1), 0.0
        for name, (label, color) in CAUSES.items():
            share = 100.0 * counts.get(name, 0) / whole
            axis.barh(y, share, 0.66, left=left, color=color, label=label if y == 0 else None)
            if share > 4:
                middle = {"ha": "center", "va": "center", "fontsize": 8}
                axis.text(left + share / 2, y, counts[name], **middle)
            left += share
        axis.annotate(f"{whole:,}", (100, y), (5, 0), textcoords="offset points", va="center")
    seeds = [len(by_task[task][key]) for task, key in totals]
    names = [f"{t}: {title_of(k)}, {n} seed(s)" for (t, k), n in zip(totals, seeds, strict=True)]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    dress(axis, "", "share of failure episodes, % (numbers: episodes of all seeds)", "")
    axis.set_xlim(0.0, 107.0)
    axis.grid(False)
    figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    footer(figure, command)
    return figure


@own_defaults()
def sweep_figure(sweep: SweepTable, task: str, command: str) -> Any:
    """Failure episodes and final return of one task's cells along the swept settings.

    Each method is a line, or each combination with distinguishing settings. Dots are seeds, bars
    95 % bootstrap intervals. Lines are shifted a little. None if nothing was swept.
    """
    across = sweep.across(task)
    if across is None:
        return None
    figure = new_figure(10.0, 4.2)
    axes = figure.subplots(1, 2, sharex=True)
    columns = ("failure_episodes", "final_return")
    ylabels = ("failure episodes in training", "final normalised return")
    keys, where = in_order(across.lines), _positions(across)
    apart = 0.012 * (np.ptp(list(where.values())) or 1.0)
    for axis, column, ylabel in zip(axes, columns, ylabels, strict=True):
        for i, key in enumerate(keys):
            moved = {place: x + apart * (i - (len(keys) - 1) / 2) for place, x in where.items()}
            style = "none" if across.ticks else STYLES[i % 4]
            _cells(axis, key, across.lines[key], column, style, moved)
        dress(axis, "", across.label, ylabel)
        names = across.ticks or [f"{place:g}" for place in where]
        axis.set_xticks(list(where.values()), names, fontsize=8)
        axis.margins(x=0.1)
    axes[0].set_ylim(bottom=0.0)
    seeds = sorted({row["seed"] for row in sweep.rows if row["task"] == task})
    heading = f"{sweep.name}: {task}, seeds {', '.join(map(str, seeds))}"
    axes[0].set_title(heading, fontsize=11, loc="left")
    _legend(figure, axes[:1])
    footer(figure, f"dots: seeds; bars: 95 % bootstrap interval of their mean. {command}")
    return figure


def _positions(across: Across) -> dict[float, float]:
    """Place -> x, or log10 of the place if the places span more than a factor of 30."""
    places = sorted({place for cells in across.lines.values() for place in cells})
    wide = places[0] > 0 and places[-1] > 30 * places[0]
    return {place: float(np.log10(place)) if wide else place for place in places}


def _legend(figure: Any, axes: Iterable[Any]) -> None:
    """One legend above all panels, with each label once, in as many columns as fit."""
    handles: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    longest = max(map(len, handles), default=0)
    columns = max(1, int(figure.get_figwidth() / (0.06 * longest + 0.5)))  # inches at 8 points
    figure.set_figheight(figure.get_figheight() + 0.17 * -(-len(handles) // columns))
    place = {"loc": "outside upper left", "ncols": columns, "frameon": False, "fontsize": 8}
    figure.legend(handles.values(), handles.keys(), **place)


def _point(axis: Any, key: str, seeds: Sequence[Sequence[float]]) -> None:
    (x, y), style = (float(np.mean(values)) for values in seeds), look(key)
    error = [
        [[abs(m - v)] for v in bootstrap_interval(s)] for m, s in zip((x, y), seeds, strict=True)
    ]
    bars = {"ecolor": style["color"], "elinewidth": 1.0, "alpha": 0.8, "fmt": "none"}
    if len(seeds[0]) > 1:
        axis.errorbar(x, y, error[1], error[0], **bars)
    method, _, variant = key.partition(" ")
    name = {"label": title_of(method)}
    axis.plot(x, y, style["marker"], color=style["color"], markersize=8, zorder=3, **name)
    if variant:
        place = {"textcoords": "offset points", "fontsize": 6.5, "color": style["color"]}
        values = [setting.split("=")[-1] for setting in variant.split(" ")]
        axis.annotate(", ".join(values), (x, y), (5, -9), **place)


def _widen(axis: Any, most: float) -> None:
    """Limits: failures from 0, and at least 10 points of return, so that noise looks small."""
    axis.margins(0.12)
    low, high = axis.get_ylim()
    short = max(10.0 - (high - low), 0.0) / 2
    axis.set_ylim(low - short, high + short)
    right = max(axis.get_xlim()[1], 1.08 * most, 1.0)
    axis.set_xlim(-0.03 * right, right)


def _recovered_share(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Recovered steps in percent of the steps between two rows; empty if never measured."""
    steps, counts = series(rows, "recovered_steps")
    steps, counts = from_zero((steps, counts))
    if len(steps) < 2 or not counts.any():
        return steps[:0], counts[:0]
    return steps[1:], 100.0 * np.diff(counts) / np.maximum(np.diff(steps), 1.0)


def _cells(
    axis: Any,
    key: str,
    cells: Mapping[float, Mapping[int, Row]],
    column: str,
    style: str,
    positions: Mapping[float, float],
) -> None:
    """One line of a sweep."""
    color, where = {"color": look(key)["color"]}, [positions[place] for place in sorted(cells)]
    seeds = [[row[column] for row in cells[place].values()] for place in sorted(cells)]
    means = [float(np.mean(values)) for values in seeds]
    shape = {"linestyle": style, "marker": look(key)["marker"]}
    axis.plot(where, means, label=title_of(key), **shape, **color)
    limits = np.array([bootstrap_interval(values) for values in seeds]).T
    error = np.abs(limits - np.array(means))
    axis.errorbar(where, means, error, fmt="none", capsize=3, linewidth=1, ecolor=color["color"])
    for x, values in zip(where, seeds, strict=True):
        axis.plot(np.full(len(values), x), values, ".", alpha=0.5, markersize=4, **color)
