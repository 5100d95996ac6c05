"""Tables and figures of what `farl bench gpu` measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.bench.loop_parts import PARTS
from experiments.figures.bench import shares_figure, throughput_figure
from experiments.figures.decoration import decoration
from experiments.process.console import command_typed
from experiments.process.outputs import write_text

PAGE = "gpu.md"
ENOUGH = 0.9
"""The smallest batch with this share of a backend's best speed is enough."""

Rows = Sequence[dict[str, Any]]


def write_page(out: Path, found: dict[str, Any], console: Console) -> None:
    """Write `<out>/gpu.md` and the figures of rows that exist, and print the page."""
    text = page(found)
    write_text(out / PAGE, text)
    console.print(text, soft_wrap=True)
    with decoration("figure", "the same command draws again"):
        if found["physics"]:
            throughput_figure(out / "physics.png", found["physics"], None, command_typed())
        if found["loop"]:
            shares_figure(out / "loop.png", found["loop"], PARTS, command_typed())


def page(found: dict[str, Any]) -> str:
    """Return the tables as Markdown. A number that was not measured is `-`."""
    device = found["environment"]["device"]
    dry = (
        " Sizes of the dry form: no number here says anything about speed." if found["dry"] else ""
    )
    fastest = enough(found["physics"]).items()
    parts = [
        f"# Measured on {device['count']} x {device['kind']}\n\nMade by `farl bench gpu`.{dry}",
        _table(
            ("stage", "state", "s", "CPU s", "told"),
            [_stage_cells(name, row) for name, row in found["stages"].items()],
        ),
        "## Environments: env steps/s of a jitted rollout with the policy",
        _table(
            ("task", "backend", "environments", "steps/s", "compile s"),
            [_physics_cells(row) for row in found["physics"]],
        ),
        "## The whole online loop of FARL",
        _table(
            ("backend", "environments", "steps/s", *PARTS, "compile s, cold", "warm", "device GB"),
            [_loop_cells(row) for row in found["loop"]],
        ),
        "## Seeds together",
        _table(
            ("backend", "seeds", "time over that of one"),
            [(r["backend"], str(r["seeds"]), f"{r['seeds_over_one']:.2f}") for r in found["seeds"]],
        ),
        "## A whole run",
        _table(
            ("backend", "method", "env steps", "s", "failure episodes", "of", "return"),
            [_run_cells(row) for row in found["run"]],
        ),
        "## Defaults that follow",
        _table(
            ("backend", "environments", "steps/s"),
            [(backend, f"{size:,}", f"{rate:,.0f}") for backend, (size, rate) in fastest],
        ),
        "The smallest batch with 90 % of the best speed, as a mean over tasks. They belong in"
        " `envs_mjx/physics/defaults.py`.",
    ]
    return "\n\n".join(parts) + "\n"


def enough(rows: Rows) -> dict[str, tuple[int, float]]:
    """Return backend -> (smallest batch with `ENOUGH` of the best mean steps/s, that speed).

    The mean is over tasks. Only batch sizes that all of a backend's tasks have count. The fastest
    backend comes first.
    """
    found = {}
    for backend in dict.fromkeys(row["backend"] for row in rows):
        own = [row for row in rows if row["backend"] == backend]
        tasks = {row["task"] for row in own}
        rates: dict[int, list[float]] = {}
        for row in own:
            rates.setdefault(row["num_envs"], []).append(row["steps_per_second"])
        means = {n: sum(r) / len(r) for n, r in rates.items() if len(r) == len(tasks)}
        if means:
            best = max(means.values())
            size = min(n for n, rate in means.items() if rate >= ENOUGH * best)
            found[backend] = (size, means[size])
    return dict(sorted(found.items(), key=lambda own: -own[1][1]))


def _stage_cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    seconds = f"{row['seconds']:.0f}", f"{row['cpu_seconds']:.0f}"
    return (name, row["state"], *seconds, row["reason"] or "")


def _physics_cells(row: dict[str, Any]) -> tuple[str, ...]:
    rates = f"{row['steps_per_second']:,.0f}", f"{row['compile_seconds']:.1f}"
    return (row["task"], row["backend"], f"{row['num_envs']:,}", *rates)


def _run_cells(row: dict[str, Any]) -> tuple[str, ...]:
    spent = f"{row['online_steps']:,}", f"{row['wall_seconds']:.0f}"
    failed = str(row["failure_episodes"]), str(row["episodes"])
    return (row["backend"], row["method"], *spent, *failed, f"{row['final_return']:.1f}")


def _loop_cells(row: dict[str, Any]) -> tuple[str, ...]:
    compiling = [f"{row[k]['compile_seconds']:.0f}" if row[k] else "-" for k in ("cold", "warm")]
    memory = row["device_memory_gb"]
    return (
        *(row["backend"], f"{row['num_envs']:,}", f"{row['steps_per_second']:,.0f}"),
        *(f"{100 * row['shares'][name]:.0f} %" for name in PARTS),
        *(*compiling, "-" if memory is None else f"{memory:.1f}"),
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return "Not measured."
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
