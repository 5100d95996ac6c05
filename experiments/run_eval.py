"""What a comparison shows: one row a run, the table over seeds, and the figure."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.decoration import decoration
from experiments.plots import comparison_figure
from experiments.runtime import UserError, read_json, write_json
from farl_jax.methods import MAIN, METHODS
from farl_jax.metrics import read_metrics

COLUMNS = (
    ("episodes", "episodes", "{:.0f}"),
    ("failure\nepisodes", "failure_episodes", "{:.0f}"),
    ("failing\nsteps", "failing_steps", "{:.0f}"),
    ("recovered\nsteps", "recovered_steps", "{:.0f}"),
    ("return\nfirst", "initial_return", "{:.1f}"),
    ("return\nlast", "final_return", "{:.1f}"),
    ("success\nlast", "final_success", "{:.2f}"),
    ("training\nseconds", "wall_seconds", "{:.0f}"),
)


def compare(root: Path, seeds: list[Path], console: Console) -> dict[str, Any]:
    """Print the table of all seeds, write `<root>/comparison.json` and `comparison.png`."""
    results = {m: [read_json(s / m / "result.json") for s in _with(seeds, m)] for m in METHODS}
    results = {m: rows for m, rows in results.items() if rows}
    if not results:
        raise UserError(f"{root}: no finished method yet; run `farl online` first")
    summary = {"methods": results}
    if all(m in results for m in MAIN):
        summary |= paired(*(results[m] for m in MAIN))
    write_json(root / "comparison.json", summary)
    console.print(_table(results))
    if "reduction_percent" in summary:
        low, high = summary["reduction_interval"]
        console.print(
            f"failure episodes: {summary['reduction_percent']:.1f} % fewer behind the gate"
            + (f" (95 % over {len(seeds)} seeds: {low:.1f} to {high:.1f})" if low != high else "")
            + f"; final return {summary['return_difference']:+.1f}",
            highlight=False,
        )
    if diverged := sum(row.get("diverged", 0) for rows in results.values() for row in rows):
        console.print(f"physics diverged in {diverged} episodes, which taught nobody anything")
    first = next(iter(results.values()))[0]
    with decoration("figure", f"farl evaluate {seeds[0]} draws that seed's"):
        figure = comparison_figure(
            root / "comparison.png",
            {METHODS[m].title: _curve(_with(seeds, m), m) for m in results},
            title=f"{first['task']}: {first['online_steps']:,} online steps, {len(seeds)} seed(s)",
            command=" ".join(["farl", *sys.argv[1:]]),
        )
        console.print(f"figure: {figure}", highlight=False, soft_wrap=True)
    return summary


def paired(base: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """Reduction of failure episodes and difference of final return, paired by seed.

    The reduction compares totals over seeds; its 95 % interval resamples seeds 10,000 times.
    """
    by_seed = {row["seed"]: row for row in base}
    pairs = [(by_seed[row["seed"]], row) for row in ours if row["seed"] in by_seed]
    if not pairs:
        raise UserError("the two methods share no seed: nothing to compare")
    failures = np.array([[b["failure_episodes"], o["failure_episodes"]] for b, o in pairs], float)
    returns = np.array([o["final_return"] - b["final_return"] for b, o in pairs])
    reduction = lambda f: 100.0 * (1.0 - f[..., 1].sum(-1) / np.maximum(f[..., 0].sum(-1), 1.0))
    rows = np.random.default_rng(0).integers(0, len(pairs), (10_000, len(pairs)))
    return {
        "reduction_percent": float(reduction(failures)),
        "reduction_interval": [
            float(x) for x in np.quantile(reduction(failures[rows]), [0.025, 0.975])
        ],
        "return_difference": float(returns.mean()),
        "return_difference_per_seed": [float(x) for x in returns],
    }


def _with(seeds: list[Path], method: str) -> list[Path]:
    return [s for s in seeds if (s / method / "result.json").is_file()]


def _curve(seeds: list[Path], method: str) -> list[dict[str, Any]]:
    rows = []
    for seed in seeds:
        number = json.loads((seed / "config.json").read_text())["seed"]
        rows += [r | {"seed": number} for r in read_metrics(seed / method / "metrics.jsonl")]
    return rows


def _table(results: dict[str, list[dict[str, Any]]]) -> Table:
    table = Table(title="mean over seeds (standard deviation)")
    table.add_column("method")
    for title, _, _ in COLUMNS:
        table.add_column(title, justify="right")
    for method, rows in results.items():
        cells = []
        for _, name, shape in COLUMNS:
            values = np.array([row[name] for row in rows], float)
            spread = f" ({shape.format(values.std(ddof=1))})" if len(values) > 1 else ""
            cells.append(shape.format(values.mean()) + spread)
        table.add_row(METHODS[method].title, *cells)
    return table
