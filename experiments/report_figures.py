"""The report's own figures: Pareto front, learning curves, failure causes, sweeps.

Colours and markers of a method are those of `paper_figures`, everywhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.paper_figures import (
    ByTask,
    bootstrap_interval,
    footer,
    in_order,
    look,
    new_figure,
    title,
)
from experiments.plots import Row, draw_lines, dress, from_zero, series, thousands
from experiments.report_stats import causes, pareto_front

CAUSES = {
    "gate_silent": ("gate silent", "#AAAAAA"),
    "recovery_late": ("recovery too late", "#EEDD88"),
    "recovery_failed": ("recovery did not save it", "#EE8866"),
    "after_recovery": ("just after a recovery", "#77AADD"),
}
"""Pale colours (Tol): those of methods mean something else."""
_STYLES = ("-", "--", "-.", ":")


def pareto_figure(by_task: ByTask, command: str) -> Any:
    """Final return against failure episodes, a panel a task; the front is a grey line.

    A point is the mean over seeds, its cross the 95 % bootstrap intervals. Limits and thresholds of
    one method are points of one colour.
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
    handles = {}
    for axis in grid[: len(by_task)]:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    place = {"loc": "outside upper right", "ncols": 4, "frameon": False, "fontsize": 8}
    figure.legend(handles.values(), handles.keys(), **place)
    figure.suptitle("Up and to the left is better", x=0.01, ha="left", fontsize=12)
    footer(figure, f"crosses: 95 % bootstrap intervals over seeds; grey: Pareto front. {command}")
    return figure


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
        style = {"color": look(key)["color"], "linestyle": _STYLES[place % 4]}
        seeds = curves[key]
        label = f"{title(key)} ({len(seeds)})"
        draw_lines(returns, [series(rows, "eval_return") for rows in seeds], style, label)
        counts = [from_zero(series(rows, "failure_episodes")) for rows in seeds]
        draw_lines(failures, counts, style, label)
        draw_lines(recovered, [_recovered_share(rows) for rows in seeds], style, label)
    for axis, heading, ylabel in (
        (returns, "Evaluated return", "normalised return (0 random, 100 expert)"),
        (failures, "Failures so far", "failure episodes (cumulative)"),
        (recovered, "Recovery at work", "recovered steps, % of steps since last point"),
    ):
        dress(axis, heading, "online environment steps", ylabel)
        axis.set_xlim(left=0.0)
        axis.xaxis.set_major_formatter(thousands)
    for axis in (failures, recovered):
        axis.set_ylim(bottom=0.0)
    labels = returns.get_legend_handles_labels()
    figure.legend(*labels, loc="outside upper right", ncols=min(4, len(curves)), frameon=False)
    figure.suptitle(task, x=0.01, ha="left", fontsize=12)
    footer(figure, f"thin: seeds (their number in brackets); thick: mean over seeds. {command}")
    return figure


def causes_figure(by_task: ByTask, command: str) -> Any:
    """Failure episodes behind a gate by what the gate had done, a line for each gated method."""
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
    names = [f"{t}: {title(k)}, {n} seed(s)" for (t, k), n in zip(totals, seeds, strict=True)]
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    dress(axis, "", "share of failure episodes, % (numbers: episodes of all seeds)", "")
    axis.set_xlim(0.0, 107.0)
    axis.grid(False)
    figure.legend(loc="outside upper right", ncols=4, frameon=False, fontsize=8)
    footer(figure, command)
    return figure


def sweep_figure(name: str, task: str, sweep: Any, command: str) -> Any:
    """Failure episodes and final return against the first swept number of one task's cells.

    Each combination of method and the other swept settings is a line; dots are seeds, bars the
    95 % bootstrap interval. None where no swept setting is a number.
    """
    rows = [row for row in sweep.rows if row["task"] == task]
    number = lambda v: isinstance(v, int | float) and not isinstance(v, bool)
    numeric = [n for n in sweep.settings if all(number(row.get(n)) for row in rows)]
    if not numeric:
        return None
    x, others = numeric[0], [n for n in sweep.settings if n != numeric[0]]
    lines: dict[str, dict[float, list[Row]]] = {}
    for row in rows:
        key = " ".join([row["method"], *(f"{n}={row.get(n)}" for n in others)])
        lines.setdefault(key, {}).setdefault(row[x], []).append(row)
    figure = new_figure(10.0, 4.2)
    axes = figure.subplots(1, 2, sharex=True)
    ylabels = ("failure episodes in training", "final normalised return")
    for axis, column, ylabel in zip(
        axes, ("failure_episodes", "final_return"), ylabels, strict=True
    ):
        for i, key in enumerate(in_order(lines)):
            _cells(axis, key, lines[key], column, _STYLES[i % 4])
        dress(axis, "", x, ylabel)
    axes[0].set_ylim(bottom=0.0)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=3)
    seeds = sorted({row["seed"] for row in rows})
    figure.suptitle(f"{name}: {task}, seeds {', '.join(map(str, seeds))}", x=0.01, ha="left")
    footer(figure, f"dots: seeds; bars: 95 % bootstrap interval of their mean. {command}")
    return figure


def _point(axis: Any, key: str, seeds: Sequence[Sequence[float]]) -> None:
    (x, y), style = (float(np.mean(values)) for values in seeds), look(key)
    error = [
        [[abs(m - v)] for v in bootstrap_interval(s)] for m, s in zip((x, y), seeds, strict=True)
    ]
    bars = {"ecolor": style["color"], "elinewidth": 1.0, "alpha": 0.8, "fmt": "none"}
    if len(seeds[0]) > 1:
        axis.errorbar(x, y, error[1], error[0], **bars)
    axis.plot(x, y, style["marker"], color=style["color"], markersize=8, label=title(key), zorder=3)
    if variant := key.partition(" ")[2]:
        place = {"textcoords": "offset points", "fontsize": 6.5, "color": style["color"]}
        axis.annotate(variant.split("=")[-1], (x, y), (5, -9), **place)


def _widen(axis: Any, most: float) -> None:
    """Failures from 0, and at least 10 points of return, so that noise does not look large."""
    axis.margins(0.12)
    low, high = axis.get_ylim()
    short = max(10.0 - (high - low), 0.0) / 2
    axis.set_ylim(low - short, high + short)
    right = max(axis.get_xlim()[1], 1.08 * most, 1.0)
    axis.set_xlim(-0.03 * right, right)


def _recovered_share(rows: Sequence[Row]) -> tuple[np.ndarray, np.ndarray]:
    """Recovered steps in per cent of the steps between two rows; empty where never measured."""
    steps, counts = series(rows, "recovered_steps")
    steps, counts = from_zero((steps, counts))
    if len(steps) < 2 or not counts.any():
        return steps[:0], counts[:0]
    return steps[1:], 100.0 * np.diff(counts) / np.maximum(np.diff(steps), 1.0)


def _cells(
    axis: Any, key: str, cells: Mapping[float, Sequence[Row]], column: str, style: str
) -> None:
    where, color = sorted(cells), look(key)["color"]
    seeds = [[row[column] for row in cells[x]] for x in where]
    means = [float(np.mean(values)) for values in seeds]
    axis.plot(where, means, style, color=color, marker=look(key)["marker"], label=title(key))
    limits = np.array([bootstrap_interval(values) for values in seeds]).T
    error = np.abs(limits - np.array(means))
    axis.errorbar(where, means, error, fmt="none", ecolor=color, capsize=3, linewidth=1)
    for x, values in zip(where, seeds, strict=True):
        axis.plot(np.full(len(values), x), values, ".", color=color, alpha=0.5, markersize=4)
