"""The table of simulated training: failures and returns of every method, and the paper's ranks."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from rich.table import Table

from experiments.comparison import log_rate_ratios, mean_reduction, paired, ranks, rate_ratio
from experiments.known import shown
from farl_jax.methods import MAIN

Row = dict[str, Any]


def tables(
    by_task: dict[str, dict[str, list[Row]]], paper: Mapping[str, Any]
) -> Iterator[Table | str]:
    """A table of each task, its ranks beside the paper's, and the mean reduction."""
    for task, methods in by_task.items():
        yield _table(task, methods)
        yield from _rank_lines(methods, paper["normalized_return"].get(task, {}))
    low, mean, high = (shown(x, ".1f") for x in mean_reduction(by_task) or (None,) * 3)
    yield (
        f"failure episodes: {mean} % fewer (95 % over seeds: {low} to {high}), mean over "
        f"{len(by_task)} task(s)"
    )
    base, ours = MAIN
    if found := rate_ratio([log_rate_ratios(rows[base], rows[ours]) for rows in by_task.values()]):
        fewer, limits = found.fewer
        interval = "{:.1f} to {:.1f}".format(*limits) if limits else "none"
        yield f"failure episodes per episode: {fewer:.1f} % fewer (95 % over seeds: {interval})"


def _rank_lines(methods: dict[str, list[Row]], paper: dict[str, Any]) -> list[str]:
    """Final return of FARL against the paper's ablations, paired by seed, if measured."""
    lines = []
    for rank in ranks(methods, paper):
        if found := rank["ours"]:
            limits = "{:+.1f} to {:+.1f}".format(*found.interval) if found.interval else "none"
            value = f"{found.mean:+.1f} (95 % over seeds: {limits})"
            lines.append(f"final return, {MAIN[1]} - {rank['rival']}: {value}; {rank['text']}")
    return lines


def _table(task: str, methods: dict[str, list[Row]]) -> Table:
    table = Table(title=f"{task}, means over seeds", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("method", no_wrap=True)
    names = ("seeds", "episodes", "failures", "rate", "gate\nacts")
    for name in (*names, "success", "return", "fewer\nfailures", "return\ndiff."):
        table.add_column(name, justify="right")
    for method, rows in methods.items():
        pair = paired(methods[MAIN[0]], rows)
        mean = lambda name, rows=rows: float(np.mean([r[name] for r in rows]))
        fewer, limits = pair["reduction_percent"], pair["reduction_interval"]
        fewer = "{:.0f} % [{:.0f}, {:.0f}]".format(fewer, *limits) if limits else "-"
        ours = method != MAIN[0]
        table.add_row(
            method,
            str(len(rows)),
            f"{mean('episodes'):.0f}",
            f"{mean('failure_episodes'):.0f}",
            f"{mean('failure_episodes') / max(mean('episodes'), 1.0):.1%}",
            f"{mean('recovered_steps') / max(mean('online_steps'), 1.0):.1%}",
            f"{mean('initial_success'):.2f} -> {mean('final_success'):.2f}",
            f"{mean('initial_return'):.1f} -> {mean('final_return'):.1f}",
            fewer if ours else "",
            f"{pair['return_difference']:+.1f}" if ours else "",
        )
    return table
