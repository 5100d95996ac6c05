"""The paper's two main figures beside ours: failure episodes, and return before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from farl_jax.methods import METHODS

_COLORS = {"uni_o4": "#D55E00", "farl": "#0072B2"}
_GREY = "#5c5c5c"
_WIDTH = 0.38

ByTask = Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]


def bootstrap_interval(values: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """95 % limits of the mean over seeds; both are the value itself where there is one seed."""
    values = np.asarray(values, float)
    rows = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[rows].mean(1), [0.025, 0.975])
    return float(low), float(high)


def failures_figure(path: Path, by_task: ByTask, paper: Mapping[str, Any], command: str) -> Path:
    """Bars of failure episodes per task: the paper's left, ours right with seeds as dots."""
    figure, (theirs, ours) = _axes()
    tasks = [task for task in by_task if task in paper["failure_episodes"]]
    for i, method in enumerate(_COLORS):
        shift = (i - 0.5) * _WIDTH
        values = [paper["failure_episodes"][task][method] for task in tasks]
        look = {"color": _COLORS[method], "label": METHODS[method].title}
        theirs.bar(np.arange(len(tasks)) + shift, values, _WIDTH, **look)
        _bars(ours, by_task, method, "failure_episodes", shift, look)
    for x, task in enumerate(tasks):
        base, safe = (paper["failure_episodes"][task][m] for m in _COLORS)
        _note(theirs, x, max(base, safe), base, safe)
    for x, methods in enumerate(by_task.values()):
        base, safe = (sum(r["failure_episodes"] for r in methods[m]) for m in _COLORS)
        top = max(r["failure_episodes"] for rows in methods.values() for r in rows)
        _note(ours, x, top, base, safe)
    _finish(theirs, tasks, "Paper, 3 seeds", "failure episodes in 1M online steps")
    _finish(ours, list(by_task), _count(by_task), "failure episodes in training")
    return _save(figure, path, "Failures during fine-tuning", command)


def returns_figure(path: Path, by_task: ByTask, paper: Mapping[str, Any], command: str) -> Path:
    """Normalised return before (pale) and after fine-tuning: the paper's left, ours right."""
    figure, (theirs, ours) = _axes()
    tasks = [task for task in by_task if task in paper["normalized_return"]]
    for i, method in enumerate(_COLORS):
        shift = (i - 0.5) * _WIDTH
        pairs = np.array([paper["normalized_return"][task][method] for task in tasks])
        look = {"color": _COLORS[method], "label": METHODS[method].title}
        pale = {"color": _COLORS[method], "alpha": 0.35}
        if len(tasks):
            theirs.bar(np.arange(len(tasks)) + shift, pairs[:, 1], _WIDTH, **look | {"alpha": 0.8})
            theirs.bar(np.arange(len(tasks)) + shift, pairs[:, 0], _WIDTH, **pale, hatch="//")
        _bars(ours, by_task, method, "final_return", shift, look)
        _bars(ours, by_task, method, "initial_return", shift, pale | {"hatch": "//"})
    _finish(theirs, tasks, "Paper, 3 seeds", "normalised return (0 random, 100 expert)")
    _finish(ours, list(by_task), _count(by_task), "normalised return (0 random, 100 expert)")
    return _save(figure, path, "Return before (hatched) and after fine-tuning", command)


def _axes() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, 2)


def _bars(
    axis: Any, by_task: ByTask, method: str, name: str, shift: float, look: Mapping[str, Any]
) -> None:
    """Mean over seeds, its 95 % interval, and a dot for each seed."""
    seeds = [[row[name] for row in methods[method]] for methods in by_task.values()]
    where = np.arange(len(seeds)) + shift
    means = np.array([np.mean(values) for values in seeds])
    limits = np.array([bootstrap_interval(values) for values in seeds]).T
    axis.bar(where, means, _WIDTH, **look)
    error = np.maximum(np.abs(limits - means), 0.0)
    axis.errorbar(where, means, error, fmt="none", ecolor="black", capsize=4, linewidth=1)
    for x, values in zip(where, seeds, strict=True):
        axis.plot(np.full(len(values), x), values, "o", color="black", markersize=3, alpha=0.6)


def _note(axis: Any, x: float, top: float, base: float, safe: float) -> None:
    fewer = 100.0 * (1.0 - safe / max(base, 1.0))
    axis.annotate(f"{-fewer:+.0f} %", (x, top), (0, 6), textcoords="offset points", ha="center")


def _count(by_task: ByTask) -> str:
    counts = {len(rows) for methods in by_task.values() for rows in methods.values()}
    return f"Ours, {'/'.join(str(n) for n in sorted(counts))} seed(s): dots; 95 % of the mean: bars"


def _finish(axis: Any, tasks: Sequence[str], title: str, ylabel: str) -> None:
    axis.set_xticks(np.arange(len(tasks)), [task.replace("_", "\n") for task in tasks], fontsize=8)
    axis.set_title(title, fontsize=10, loc="left")
    axis.set_ylabel(ylabel)
    axis.margins(y=0.12)
    axis.grid(True, axis="y", color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path, title: str, command: str) -> Path:
    figure.suptitle(title, fontsize=12)
    legend = figure.axes[-1].get_legend_handles_labels()
    figure.legend(*legend, loc="outside upper right", ncols=2, frameon=False, fontsize=8)
    figure.supxlabel(command, fontsize=7, color=_GREY)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
