"""What a sweep prints before it starts: its runs, and their expected time and memory."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from envs_mjx.physics.defaults import defaults_of
from experiments.arguments import SweepArgs
from experiments.search_path import ROOT
from experiments.sweep.cells import TABLE, Sweep
from experiments.sweep.cost import Forecast, Measured, forecast, of_loop, of_run

_RESULTS = Path(ROOT, "results")
_RUNS = ("main.jsonl", "earlier/main.jsonl", "quick/main.jsonl")
"""Rows of stored runs. They were trained on a CPU (docs/results.md)."""
_BENCH = ("bench/train.json", "bench/train_seeds.json", "bench/gpu/gpu.json")


def tell(sweep: Sweep, args: SweepArgs, console: Console) -> list[Forecast]:
    """Print what is left to do, and return each method's forecast."""
    import jax

    platform = jax.default_backend()
    measured = [*stored(_RESULTS), *own(args.out / TABLE, platform)]
    backend = args.backend or defaults_of(platform).backend
    bases, _ = sweep.missing()
    steps = max(cell.settings.config.online.env_steps for cell in sweep.cells)
    table = Table(title=f"{len(sweep.cells):,} cells, {len(bases):,} offline phases before them")
    for name in ("method", "runs left", "together", "expected", "memory", "measured on"):
        table.add_column(name)
    found = []
    for method, groups in sweep.left().items():
        one = forecast(measured, (args.task, method, backend, platform), groups, steps)
        found.append(one)
        memory = one.memory_gb
        each = "unmeasured" if memory is None else f"{memory:.1f} GB a process"
        cells = (method, f"{one.runs:,}", str(one.together), duration(one.seconds))
        table.add_row(*cells, each, one.near)
    console.print(table)
    console.print(_sum(found, args.workers), highlight=False, soft_wrap=True)
    envs = min(cell.settings.config.online.num_envs for cell in sweep.cells)
    most = envs * max((one.together for one in found), default=1)
    if told := advice(defaults_of(platform).num_envs, most):
        console.print(told, highlight=False, soft_wrap=True)
    return found


def advice(best: int | None, num_envs: int) -> str:
    """Return what to do if a device wants more environments in a program; None: unmeasured."""
    if best is None or not 0 < num_envs < best:
        return ""
    return (
        f"a program here has {num_envs:,} environments, and this device is fast from {best:,} on: "
        "train more seeds --together"
    )


def stored(results: Path) -> Iterator[Measured]:
    """Yield the measurements in a folder like `results/`. Files that are missing are left out."""
    for path in (results / name for name in _RUNS):
        if path.exists():
            yield from (of_run(row, "cpu") for row in _lines(path))
    for path in (results / name for name in _BENCH):
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            platform = content["environment"]["device"]["platform"]
            rows = content.get("rows", []) + content.get("loop", []) + content.get("seeds", [])
            for row in rows:
                yield from of_loop(row, platform)
            yield from (of_run(row, platform) for row in content.get("run", []))


def own(table: Path, platform: str) -> Iterator[Measured]:
    """Yield the measurements in a sweep's own table, made on this kind of device."""
    if table.exists():
        yield from (of_run(row, platform) for row in _lines(table) if row.get("wall_seconds"))


def duration(seconds: float | None) -> str:
    """Return seconds as text, such as `3.2 h`."""
    if seconds is None:
        return "unmeasured"
    for unit, size in (("days", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _sum(found: list[Forecast], workers: int) -> str:
    known = [one.seconds for one in found if one.seconds is not None]
    if not any(one.runs for one in found):
        return "nothing is left to train"
    unknown = "" if len(known) == len(found) else ", without the methods that are unmeasured"
    total = duration(sum(known)) if known else "unmeasured"
    share = "" if workers == 1 else f"; {workers} workers share this machine's cores"
    return f"expected training: {total}{unknown}; offline phases are unmeasured{share}"


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
