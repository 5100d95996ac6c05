"""The one style of all figures: colours and markers by method, titles, axes, files."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures import drawing
from experiments.figures.drawing import own_defaults
from farl_jax.methods import METHODS

Row = Mapping[str, Any]
ByTask = Mapping[str, Mapping[str, Sequence[Row]]]
"""task -> key -> rows by seed. A key is a method, then its distinguishing settings."""

GREY = "#5c5c5c"
COLORS = {
    "uni_o4": "#D55E00",
    "farl": "#0072B2",
    "ppo_lagrangian": "#E69F00",
    "p3o": "#009E73",
    "cpo": "#CC79A7",
    "simple_critic": "#56B4E9",
    "sooper": "#AA4499",
    "mppi": "#332288",
    "no_recovery": "#999999",
}
"""Okabe and Ito's palette, safe for any colour vision, and two more colours."""
PALETTE = tuple(COLORS.values())
"""The same colours for lines that are not methods."""
STYLES = ("-", "--", "-.", ":")
_SPARE = ("#117733", "#882255", "#661100", "#44AA99")
_MARKERS = "os^Dv<P*X>hpd"


def look(key: str) -> dict[str, str]:
    """Colour and marker of a key's method, the same in every figure."""
    method = key.split(" ")[0]
    if method in COLORS:
        return {"color": COLORS[method], "marker": _MARKERS[list(COLORS).index(method)]}
    spare = sum(method.encode()) % len(_SPARE)
    return {"color": _SPARE[spare], "marker": _MARKERS[len(COLORS) + spare]}


def line_look(index: int) -> dict[str, str]:
    """Colour and line style of the n-th line that is no method, all different."""
    style = STYLES[(index + index // len(STYLES)) % len(STYLES)]
    return {"color": PALETTE[index % len(PALETTE)], "linestyle": style}


def title_of(key: str) -> str:
    """Title of a key: its method's title or name, then its distinguishing settings."""
    method, _, rest = key.partition(" ")
    name = METHODS[method].title if method in METHODS else method
    return f"{name}, {rest}" if rest else name


def in_order(keys: Iterable[str]) -> list[str]:
    """Keys in the order of `METHODS`, with unknown methods last."""
    known = list(METHODS)
    place = lambda method: known.index(method) if method in known else len(known)
    return sorted(keys, key=lambda key: (place(key.split(" ")[0]), key))


@own_defaults()
def save(figure: Any, folder: Path, name: str) -> Path:
    """Write `<folder>/<name>.png` and `.pdf` reproducibly, and return the PNG's path."""
    drawing.write_plainly(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # one layout for both files
    drawing.save(figure, folder / f"{name}.pdf", metadata={"CreationDate": None})
    return drawing.save(figure, folder / f"{name}.png")


def footer(figure: Any, command: str) -> None:
    """Write the command that made the numbers below all panels."""
    width = int(14 * figure.get_figwidth())
    figure.supxlabel("\n".join(textwrap.wrap(command, width)), fontsize=7, color=GREY)


def series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P] and values [P] of the rows with `name`, by step."""
    points = sorted((row["step"], row[name]) for row in rows if row.get(name) is not None)
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, float), np.array(values, float)


def from_zero(series: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A count, with 0 before the first step."""
    steps, values = series
    if not len(steps) or steps[0] <= 0:
        return series
    return np.append(0.0, steps), np.append(0.0, values)


def _mean(
    runs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs, interpolated to all their steps in the range that all cover."""
    runs = [run for run in runs if len(run[0])]
    low, high = max(s[0] for s, _ in runs), min(s[-1] for s, _ in runs)
    grid = np.unique(np.concatenate([steps for steps, _ in runs]))
    grid = grid[(grid >= low) & (grid <= high)]
    return grid, np.mean([np.interp(grid, steps, values) for steps, values in runs], axis=0)


def draw_lines(
    axis: Any, runs: Sequence[tuple[np.ndarray, np.ndarray]], look: Mapping[str, Any], label: str
) -> None:
    """Draw each seed as a thin line, and their mean as a thick one."""
    runs = [run for run in runs if len(run[0])]
    if len(runs) > 1:
        for steps, values in runs:
            axis.plot(steps, values, color=look["color"], linewidth=0.8, alpha=0.4)
    if runs:
        steps, values = _mean(runs)
        marker = "o" if len(steps) < 12 else None
        axis.plot(steps, values, **look, linewidth=2.2, marker=marker, markersize=4, label=label)


def dress(axis: Any, title: str, xlabel: str, ylabel: str) -> Any:
    """Set title, labels and a light grid, and return the title."""
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(True, color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return axis.set_title(title, fontsize=11, loc="left")


def thousands(value: float, _: int) -> str:
    """Tick label of a count: 300k, 1M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"
