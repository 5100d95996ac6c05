"""The comparison of finished methods: the table over seeds, and the figure."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.comparison import paired
from experiments.errors import UserError
from experiments.figures.decoration import decoration
from experiments.figures.runs import comparison_figure
from experiments.process.console import command_typed
from experiments.process.outputs import write_json
from experiments.runs.environment import is_own_environment
from experiments.runs.files import RESULT, read_curve, read_settings
from experiments.runs.provenance import read_result
from farl_jax.methods import MAIN, METHODS

COLUMNS = (
    ("episodes", "episodes", "{:.0f}"),
    ("failure\nepisodes", "failure_episodes", "{:.0f}"),
    ("offline\nfailures", "offline_failure_episodes", "{:.0f}"),
    ("failing\nsteps", "failing_steps", "{:.0f}"),
    ("recovered\nsteps", "recovered_steps", "{:.0f}"),
    ("return\nfirst", "initial_return", "{:.1f}"),
    ("return\nlast", "final_return", "{:.1f}"),
    ("success\nlast", "final_success", "{:.2f}"),
    ("training\nseconds", "wall_seconds", "{:.0f}"),
)


def compare(root: Path, seeds: list[Path], console: Console) -> dict[str, Any]:
    """Print the table of all seeds, write `<root>/comparison.json` and `comparison.png`.

    Raises:
        SchemaError: a result or learning curve is damaged. Then nothing is written.
        UserError: no method is finished, or a result is another run's.
    """
    settings = {seed: read_settings(seed)[0] for seed in seeds}
    finished = {m: [s for s in seeds if (s / m / RESULT).exists()] for m in METHODS}
    results = {
        m: [read_result(s, settings[s], m) for s in own] for m, own in finished.items() if own
    }
    if not results:
        raise UserError(f"{root}: no finished method yet; run `farl online` first")
    curves = {
        m: [row | {"seed": settings[s].seed} for s in finished[m] for row in read_curve(s / m)]
        for m in results
    }
    summary = {"methods": results}
    if all(m in results for m in MAIN):
        summary |= paired(*(results[m] for m in MAIN))
    write_json(root / "comparison.json", summary)
    console.print(_table(results))
    if "reduction_percent" in summary:
        console.print(_paired_line(summary, len(seeds)), highlight=False)
    if diverged := sum(row.get("diverged", 0) for rows in results.values() for row in rows):
        own = is_own_environment(next(iter(settings.values())).task)
        what = "evaluations or restarts cut off" if own else "physics diverged in"
        console.print(f"{what} {diverged} episodes, whose last steps were not learnt from")
    first = next(iter(results.values()))[0]
    with decoration("figure", f"farl evaluate {seeds[0]} draws it for that seed"):
        figure = comparison_figure(
            root / "comparison.png",
            curves,
            title=f"{first['task']}: {first['online_steps']:,} online steps, {len(seeds)} seed(s)",
            command=command_typed(),
        )
        console.print(f"figure: {figure}", highlight=False, soft_wrap=True)
    return summary


def _paired_line(summary: dict[str, Any], seeds: int) -> str:
    """The comparison of the two main methods as one line."""
    low, high = summary["reduction_interval"] or (0.0, 0.0)
    limits = f" (95 % over {seeds} seeds: {low:.1f} to {high:.1f})" if low != high else ""
    fewer = summary["reduction_percent"]
    told = "none to reduce" if fewer is None else f"{fewer:.1f} % fewer behind the gate{limits}"
    return f"failure episodes: {told}; final return {summary['return_difference']:+.1f}"


def _table(results: dict[str, list[dict[str, Any]]]) -> Table:
    title = "mean over seeds (standard deviation)"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    for title, _, _ in COLUMNS:
        table.add_column(title, justify="right")
    for method, rows in results.items():
        cells = []
        for _, name, shape in COLUMNS:
            values = np.array([row.get(name) for row in rows], float)
            spread = f" ({shape.format(values.std(ddof=1))})" if len(values) > 1 else ""
            cells.append("-" if np.isnan(values).any() else shape.format(values.mean()) + spread)
        table.add_row(METHODS[method].title, *cells)
    return table
