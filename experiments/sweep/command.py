"""`farl sweep`: plan, make or submit, collect, and print the table."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.arguments import SweepArgs
from experiments.process.outputs import check_output
from experiments.runs.folder import check_data
from experiments.runs.presets import text_of
from experiments.sweep import fleet, forecast
from experiments.sweep.cells import MANIFEST, TABLE, Row, Sweep
from farl_jax.measure.intervals import bootstrap_interval


def sweep(args: SweepArgs, command: str, console: Console) -> list[Row]:
    """Run a sweep, print its table, and return the rows of failures."""
    fleet.check(args)
    check_data(args.out, MANIFEST)
    alone = args.executor == "local" and args.workers == 1
    cells = Sweep(args, command, console, alone=alone)
    check_output("--out", args.out / TABLE)
    forecast.tell(cells, args, console)
    cells.write_manifest()
    if not alone and not fleet.make_all(args, cells.missing, console):
        return []  # submitted
    failed = cells.run()
    if cells.rows:
        console.print(summary(cells.rows, list(cells.cells[0].swept)))
    console.print(f"table: {args.out / TABLE}", highlight=False, soft_wrap=True)
    for row in failed:
        line = f"failed: {row['cell']} {row['method']}: {row['error']}"
        console.print(line, style="red", markup=False, soft_wrap=True)
    return failed


def summary(rows: Sequence[Row], fields: Sequence[str]) -> Table:
    """Means over seeds by setting and method, with 95 % limits if there are several seeds."""
    table = Table(title="mean over seeds [95 %]")
    for name in (*fields, "method", "seeds"):
        table.add_column(name.replace(".", ".\n"), justify="right")
    for name in ("failure\nepisodes", "of", "return", "success"):
        table.add_column(name, justify="right")
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (*(text_of(row[name]) for name in fields), row["method"])
        groups.setdefault(key, []).append(row)
    for key, own in groups.items():
        cells = []
        for name, shape in (
            ("failure_episodes", ".0f"),
            ("episodes", ".0f"),
            ("final_return", ".1f"),
            ("final_success", ".2f"),
        ):
            values = [row[name] for row in own]
            low, high = bootstrap_interval(values)
            limits = f" [{low:{shape}}, {high:{shape}}]" if low != high else ""
            cells.append(f"{np.mean(values):{shape}}{limits}")
        table.add_row(*key, str(len(own)), *cells)
    return table
