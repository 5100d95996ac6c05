"""`farl bench train`: env steps per second of FARL's online loop, and the shares of its parts.

Each row is measured in new processes, so that compile time and peak memory belong to the row.
Networks have random weights, which do not change the cost of gate or update.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from experiments.arguments_bench import BenchTrainArgs
from experiments.bench.loop_parts import (
    PARTS,
    Setup,
    device_memory_gb,
    loop,
    parts,
    rehearsal,
    roofline,
    timed,
)
from experiments.errors import UserError
from experiments.figures.bench import shares_figure
from experiments.figures.decoration import decoration
from experiments.process.console import command_typed
from experiments.process.machine import describe_environment, peak_memory_gb, prepare_jax
from experiments.process.outputs import FIGURES, check_output, write_json

_WORKER = """
import sys
sys.path[:] = {path}
from experiments.bench.train import main
sys.exit(main())
"""


def run(args: BenchTrainArgs, console: Console) -> list[dict[str, Any]]:
    """Measure every task, backend and batch size; print a table and write the files in `args`.

    A row that cannot be measured here is reported and skipped.
    """
    from envs_mjx import task_class, tasks_named

    tasks = tasks_named(args.task)
    for task in tasks:
        task_class(task)  # raises on an unknown task; making it would start JAX here
    check_output("--figure", args.figure, FIGURES)
    check_output("--out", args.out)
    if min(args.num_envs, default=0) < 1 or args.seeds < 1 or args.seconds <= 0:
        raise UserError("--num-envs, --seeds and --seconds must be above 0")
    rows, reason = [], ""
    for wanted in ((t, b, n) for t in tasks for b in args.backends for n in args.num_envs):
        name = "{} {} {} envs".format(*wanted)
        console.print(f"{name} ...", style="dim")
        try:
            rows.append(_in_own_processes(*wanted, args))
            if args.out is not None:
                write_json(args.out, {"rows": rows, "environment": describe_environment()})
        except UserError as error:
            reason = f": {error}"
            console.print(f"{name}: {error}", highlight=False, soft_wrap=True)
    if not rows:
        raise UserError(f"nothing could be measured{reason}")
    console.print(_table(rows))
    if args.figure is not None:
        with decoration("figure", "the rows are above; the same command measures again"):
            shares_figure(args.figure, rows, PARTS, command_typed())
            console.print(f"figure: {args.figure}", highlight=False, soft_wrap=True)
    return rows


def _in_own_processes(
    task: str, backend: str, num_envs: int, args: BenchTrainArgs
) -> dict[str, Any]:
    """Measure one row; with `cold`, first with an empty compile cache, then with a full one."""
    ask = {"task": task, "backend": backend, "num_envs": num_envs}
    ask |= {"seconds": args.seconds, "seeds": args.seeds}
    if not args.cold:
        return _worker(ask) | {"cold": None}
    with tempfile.TemporaryDirectory() as cache:
        first = _worker(ask | {"seconds": 0.0}, FARL_CACHE_DIR=cache)
        return _worker(ask, FARL_CACHE_DIR=cache) | {"cold": first["warm"]}


def _worker(ask: dict[str, Any], **variables: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _WORKER.format(path=sys.path)]
    text = json.dumps(ask | {"started": time.time()})
    done = subprocess.run(
        [*command, text],
        env=os.environ | {"PYTHONSAFEPATH": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        raise UserError(last.removeprefix("farl: "))
    return json.loads(done.stdout.splitlines()[-1])


def measure(ask: dict[str, Any]) -> dict[str, Any]:
    """Return a worker's measurements: first calls always, parts and rates if `seconds` > 0.

    `warm` is {start_seconds: from the process's start to the end of the first update;
    compile_seconds: time of first calls minus second ones}, with the current cache.
    """
    setup = Setup(ask["task"], ask["backend"], ask["num_envs"])
    phase, frozen, gate = setup.phase, setup.frozen, setup.gate
    state = phase.init(frozen, jax.random.key(0))
    first, second = [], []
    for taken in (first, second):
        (state, steps), seconds = timed(phase.collect, state, frozen, gate)
        demos = rehearsal(setup, steps)
        (state, _), more = timed(phase.update, state, frozen, steps, demos)
        if taken is first:
            start_seconds = time.time() - ask["started"]
        taken += [seconds, more]
    compiling = sum(first) - sum(second)
    row = {"warm": {"start_seconds": start_seconds, "compile_seconds": compiling}}
    if ask["seconds"] > 0:
        row |= {k: ask[k] for k in ("task", "backend", "num_envs")}
        row |= parts(setup, (state, steps, demos), ask["seconds"])
        if ask["seeds"] > 1:
            alone, together = (loop(setup, n, demos, ask["seconds"]) for n in (1, ask["seeds"]))
            row |= {"seeds": ask["seeds"], "seeds_over_one": together / alone}
        row |= {"peak_memory_gb": peak_memory_gb(), "device_memory_gb": device_memory_gb()}
        row |= roofline(setup, row["seconds"]["gate"])
    return row


def _table(rows: list[dict[str, Any]]) -> Table:
    parts = (name.removeprefix("world_") for name in PARTS)
    names = ("task", "backend", "envs", "steps/s", *parts, "compile s", "GB", "gate/matmul")
    names += ("seeds",)
    title = "FARL's online loop; parts in % of its time"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True, justify="left" if name in names[:2] else "right")
    for row in rows:
        compiling = [row[k]["compile_seconds"] for k in ("cold", "warm") if row[k]]
        memory = row["device_memory_gb"] or row["peak_memory_gb"]
        table.add_row(
            *(row["task"], row["backend"], str(row["num_envs"]), f"{row['steps_per_second']:,.0f}"),
            *(f"{100 * row['shares'][name]:.0f}" for name in PARTS),
            *(" / ".join(f"{s:.0f}" for s in compiling), f"{memory:.1f}"),
            f"{row['gate_share_of_matmul']:.2f}",
            f"{row['seeds']}: {row['seeds_over_one']:.1f}x" if "seeds" in row else "",
        )
    return table


def main() -> int:
    """Run a worker: print the row as stdout's last line, or an error as one line on stderr."""
    from envs_mjx import EnvError

    prepare_jax()
    try:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except (EnvError, UserError) as error:
        print(f"farl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
