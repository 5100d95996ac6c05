"""Figures of speed: env steps per second, and the parts of the online loop's time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.drawing import new_figure, own_defaults, save
from experiments.figures.style import GREY, PALETTE, STYLES, Row, dress


@own_defaults()
def throughput_figure(
    path: Path, rows: Sequence[Row], metaworld: Mapping[Any, float] | None, command: str
) -> Path:
    """Draw env steps per second against batch size, both logarithmic.

    Args:
        path: the picture to write.
        rows: of `bench.measure`; one line for each task and backend.
        metaworld: processes -> env steps per second, a horizontal line each.
        command: for the footer.
    """
    figure = new_figure(7.5, 5.0)
    axis = figure.subplots()
    tasks, backends = (list(dict.fromkeys(r[k] for r in rows)) for k in ("task", "backend"))
    for task in tasks:
        for backend in backends:
            line = [r for r in rows if (r["task"], r["backend"]) == (task, backend)]
            look = {"color": PALETTE[tasks.index(task) % 4], "marker": "o"}
            look["linestyle"] = STYLES[backends.index(backend) % 4]
            sizes, rates = [r["num_envs"] for r in line], [r["steps_per_second"] for r in line]
            if line:
                axis.plot(sizes, rates, **look, label=f"{task}, {backend}")
    for processes, rate in (metaworld or {}).items():
        axis.axhline(rate, color=GREY, linewidth=0.8)
        axis.annotate(f"MetaWorld, {processes} process(es)", (sizes[0], rate), fontsize=8)
    dress(axis, "Throughput of a jitted rollout with the policy", "environments", "env steps/s")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.legend(frameon=False, fontsize=8)
    figure.supxlabel(command, fontsize=7, color=GREY)
    return save(figure, path)


@own_defaults()
def shares_figure(path: Path, rows: Sequence[Row], names: Sequence[str], command: str) -> Path:
    """Draw each part's share of the time, as one stacked bar per row.

    Args:
        path: the picture to write.
        rows: of `bench_train.run`, with `shares` by part.
        names: parts from left to right. Parts below 0 are left out.
        command: for the footer.
    """
    figure = new_figure(9.0, 1.8 + 0.45 * len(rows))
    axis = figure.subplots()
    labels = [f"{r['task']}, {r['backend']}, {r['num_envs']} environments" for r in rows]
    left = np.zeros(len(rows))
    for name, color in zip(names, PALETTE, strict=False):
        width = np.array([max(0.0, 100 * row["shares"][name]) for row in rows])
        axis.barh(range(len(rows)), width, left=left, color=color, label=name.replace("_", " "))
        left += width
    for i, row in enumerate(rows):
        axis.annotate(f" {row['steps_per_second']:,.0f}/s", (left[i], i), va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_xlim(0.0, 1.15 * left.max())
    axis.invert_yaxis()
    dress(axis, "Where the online loop's time goes", "% of the time of an update", "")
    figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=len(names))
    figure.supxlabel(command, fontsize=7, color=GREY)
    return save(figure, path)
