"""The paper's figures beside ours: failure episodes, and return before and after fine-tuning.

Each task has a row of two panels: left the paper's numbers, right ours on their own axis. Each
method is a line. Dots are seeds, bars 95 % bootstrap intervals of the mean over seeds.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.drawing import new_figure, own_defaults
from experiments.figures.style import ByTask, footer, in_order, look, title_of
from experiments.runs.records import Paper
from farl_jax.measure.intervals import bootstrap_interval
from farl_jax.methods import BASELINE
from farl_jax.storage import json_files

PAPER = Path(__file__).with_name("paper_numbers.json")


def read_paper() -> dict[str, Any]:
    """Return the paper's numbers. See `experiments.runs.records.Paper`."""
    return json_files.read(PAPER, Paper)


SIMULATED, REAL = "3 seeds, 1M steps", "real robot, 50 episodes"
"""Budgets of the paper's runs."""


@own_defaults()
def failures_figure(by_task: ByTask, paper: Mapping[str, Any], command: str) -> Any:
    """Bars of failure episodes per task and method."""
    figure, panels = _bars(by_task, paper["failure_episodes"], "failure_episodes")
    label = "failure episodes in training (mean over seeds)"
    heading = "Failures during fine-tuning"
    return _finish(figure, panels, by_task, (heading, label, SIMULATED), command)


@own_defaults()
def robot_figure(by_task: ByTask, paper: Mapping[str, Any], command: str) -> Any:
    """Bars of failing state-action pairs per task and method, beside the paper's real robot."""
    figure, panels = _bars(by_task, paper["failing_pairs"], "failing_steps")
    label = "failing state-action pairs in training (mean over seeds)"
    heading = "Failing steps of fifty episodes on one robot"
    return _finish(figure, panels, by_task, (heading, label, REAL), command)


def _bars(by_task: ByTask, theirs: Mapping[str, Any], count: str) -> tuple[Any, dict[str, Any]]:
    """The figure and panels (`_panels`) with bars of a count in the rows."""
    figure, panels = _panels(by_task, theirs)
    for task, (left, right, keys) in panels.items():
        base = {row["seed"]: row[count] for row in by_task[task].get(BASELINE, ())}
        for y, key in enumerate(keys):
            if key in theirs.get(task, {}):
                _bar(left, y, key, [theirs[task][key]], theirs[task].get(BASELINE))
            if rows := by_task[task].get(key):
                seeds = {row["seed"]: row[count] for row in rows}
                same = (
                    np.mean(list(base.values())) if base and seeds.keys() == base.keys() else None
                )
                _bar(right, y, key, list(seeds.values()), same)
                _interval(right, y, list(seeds.values()))
        for axis in (left, right):
            axis.margins(x=0.25)
            axis.set_xlim(left=0.0)
    return figure, panels


@own_defaults()
def returns_figure(
    by_task: ByTask,
    paper: Mapping[str, Any],
    command: str,
    heading: str = "Return before (hollow) and after fine-tuning (filled)",
) -> Any:
    """Lines from the return before to the return after fine-tuning, per task and method."""
    theirs = paper["normalized_return"]
    figure, panels = _panels(by_task, theirs)
    for task, (left, right, keys) in panels.items():
        for y, key in enumerate(keys):
            if key in theirs.get(task, {}):
                _change(left, y, key, *theirs[task][key])
            if rows := by_task[task].get(key):
                first, last = ([r[f"{n}_return"] for r in rows] for n in ("initial", "final"))
                _change(right, y, key, np.mean(first), np.mean(last))
                _interval(right, y, last)
        for axis in (left, right):
            axis.axvline(100.0, color="#b8b8b8", linewidth=0.8, linestyle=":")
            axis.margins(x=0.12)
        if left.lines[1:]:  # both on one scale
            right.sharex(left)
            left.autoscale_view()
    label = "normalised return (0 random, 100 expert; mean over seeds)"
    return _finish(figure, panels, by_task, (heading, label, SIMULATED), command)


def _panels(by_task: ByTask, theirs: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The figure, and task -> (paper's axis, our axis, keys from the top)."""
    ours = {task: [k for k, rows in keys.items() if rows] for task, keys in by_task.items()}
    shown = {key for found in ours.values() for key in found}
    keys = {t: in_order({*found, *shown & set(theirs.get(t, {}))}) for t, found in ours.items()}
    heights = [0.30 * len(each) + 0.62 for each in keys.values()]
    figure = new_figure(10.0, sum(heights) + 1.25)
    grid = figure.subplots(len(keys), 2, sharey="row", squeeze=False, height_ratios=heights)
    for axis in grid.flat:
        axis.tick_params(labelsize=8)
        axis.grid(True, axis="x", color="#e4e4e4", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, {t: (*axes, keys[t]) for t, axes in zip(keys, grid, strict=True)}


def _interval(axis: Any, y: float, seeds: Sequence[float]) -> None:
    """Draw the 95 % interval of the mean over seeds, and a dot per seed."""
    low, high = bootstrap_interval(seeds)
    if len(seeds) > 1:
        look = {"color": "black", "linewidth": 1.1, "marker": "|", "markersize": 7}
        axis.plot([low, high], [y, y], **look, zorder=4)
    dots = {"color": "white", "markeredgecolor": "black", "markeredgewidth": 0.7, "markersize": 3.4}
    axis.plot(seeds, np.full(len(seeds), y), "o", **dots, zorder=5)


def _change(axis: Any, y: float, key: str, first: float, last: float) -> None:
    color, marker = look(key)["color"], look(key)["marker"]
    axis.plot([first, last], [y, y], color=color, linewidth=2.2, alpha=0.55)
    axis.plot(first, y, marker, color="white", markeredgecolor=color, markersize=7)
    axis.plot(last, y, marker, color=color, markersize=8)
    side = 1 if last >= first else -1
    place = {"textcoords": "offset points", "ha": "left" if side > 0 else "right", "va": "bottom"}
    axis.annotate(f"{last:.1f}", (last, y), (5 * side, 2), fontsize=7.5, **place)


def _bar(axis: Any, y: float, key: str, seeds: Sequence[float], base: float | None) -> None:
    """Draw the mean as a bar, with its number and its change against the baseline, `base`."""
    mean = float(np.mean(seeds))
    axis.barh(y, mean, 0.62, color=look(key)["color"])
    change = f"  ({100 * (mean / base - 1):+.0f} %)" if base and key != BASELINE else ""
    place = {"textcoords": "offset points", "va": "center", "fontsize": 7.5}
    axis.annotate(f"{mean:,.0f}{change}", (max(mean, *seeds), y), (6, 0), **place)


def _finish(
    figure: Any,
    panels: Mapping[str, Any],
    by_task: ByTask,
    words: tuple[str, str, str],
    command: str,
) -> Any:
    """Write titles and labels. `words` are the heading, the label of x, the paper's budget."""
    heading, xlabel, budget = words
    for task, (left, right, keys) in panels.items():
        left.set_yticks(range(len(keys)), [title_of(key) for key in keys], fontsize=8)
        left.set_ylim(len(keys) - 0.4, -0.6)
        paper = f"paper, {budget}" if left.has_data() else "not in the paper"
        left.set_title(f"{task}: {paper}", fontsize=9, loc="left")
        right.set_title(f"ours, {_budget(by_task[task])}", fontsize=9, loc="left")
        right.tick_params(axis="y", length=0)
    for axis in (left, right):
        axis.set_xlabel(xlabel, fontsize=8)
    figure.suptitle(heading, fontsize=12)
    note = "ours: dots are seeds, black bars the 95 % bootstrap interval of the mean over seeds"
    footer(figure, f"{note}. {command}")
    return figure


def _budget(methods: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Numbers of seeds and steps of our bars; of episodes if all runs have as many."""
    seeds = sorted({len(rows) for rows in methods.values() if rows})
    each = lambda name: sorted({row[name] for rows in methods.values() for row in rows})
    steps, episodes = each("online_steps"), each("episodes")
    alike = len(episodes) == 1 < len(steps)
    numbers = "/".join(f"{n:,}" for n in (episodes if alike else steps))
    count = "/".join(str(n) for n in seeds)
    unit = "episodes" if alike else "steps"
    return f"{count} seed{'' if seeds == [1] else 's'}, {numbers} {unit}"
