"""`farl bench deploy`: how long one decision of an exported policy takes, on one CPU core.

Each program is loaded and timed in a process of its own that may use a single core. The clock runs
over `SafePolicy.act`: checks, copies and the program. `preemptions` counts how often another
process took the core away meanwhile: then the slowest decisions are not the program's own. On a
busy machine `chrt -f 50 farl bench deploy ...` goes before all others, as a robot's loop would.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.arguments import BenchDeployArgs
from experiments.errors import UserError
from experiments.process.machine import describe_environment, peak_memory_gb
from experiments.process.outputs import check_output, write_json
from farl_jax import deploy

AIMS_MS = {"median": 2.0, "p99": 5.0}
"""A decision of at most 2 ms is 500 Hz; the paper's robot decides 10 to 20 times a second."""
_WORKER = """
import sys
sys.path[:] = {path}
from experiments.bench.deploy import main
sys.exit(main())
"""


def run(args: BenchDeployArgs, console: Console) -> list[dict[str, Any]]:
    """Measure every program of the folder `args.policy`; prints a table, may write JSON.

    Raises:
        DeployError, UserError: no exported policy, or it cannot act here.
    """
    contract = deploy.read_contract(args.policy)
    check_output("--out", args.out)
    rows = []
    for runtime, name in deploy.PROGRAMS.items():
        if name in contract["files"]:
            measured = _in_own_process(args.policy, runtime, args.steps)
            about = {key: contract[key] for key in ("task", "method", "sha256")}
            about |= {"runtime": runtime, "bytes": contract["files"][name]["bytes"]}
            rows.append(about | measured)
    console.print(_table(rows))
    for row in rows:
        missed = [name for name, aim in AIMS_MS.items() if row[f"{name}_ms"] > aim]
        for name in missed:
            console.print(f"{row['runtime']}: {name} above the aim of {AIMS_MS[name]} ms")
    if args.out is not None:
        environment = describe_environment() | {"processor": _processor()}
        write_json(args.out, {"rows": rows, "environment": environment})
    return rows


def _in_own_process(folder: Path, runtime: str, steps: int) -> dict[str, Any]:
    """Time one program in a process that this machine gives a single core."""
    ask = json.dumps({"folder": str(folder), "runtime": runtime, "steps": steps})
    done = subprocess.run(
        [sys.executable, "-c", _WORKER.format(path=sys.path), ask],
        env=os.environ | {"PYTHONSAFEPATH": "1", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        raise UserError(f"{runtime}: {last.split('DeployError: ')[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Time what the command line asks for; the worker's own process."""
    ask = json.loads(sys.argv[1])
    core = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})  # before a runtime counts the cores
    began = time.perf_counter()
    policy = deploy.load(ask["folder"], ask["runtime"])
    seconds = time.perf_counter() - began
    before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    times, shares = measure(policy, ask["steps"])
    taken = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
    row = {f"{name}_ms": value for name, value in latencies(times).items()}
    row |= {"steps": len(times), "intervened_share": shares, "load_seconds": round(seconds, 2)}
    real_time = os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)
    row |= {"preemptions": taken, "real_time": real_time}
    print(json.dumps(row | {"memory_gb": round(peak_memory_gb(), 3)}))
    return 0


def measure(policy: deploy.SafePolicy, steps: int, seed: int = 0) -> tuple[np.ndarray, float]:
    """(Seconds [steps] of each decision, share in which recovery acted), in one long episode.

    Observations are uniform within the contract's bounds, normal where it has none; each is held
    for 10 decisions. A tenth as many decisions go before, untimed.
    """
    rng, warm = np.random.default_rng(seed), steps // 10
    observations = [_draw(policy.contract["observation"], rng) for _ in range(1 + steps // 10)]
    memory, times, acted = policy.start(), [], 0
    for i in range(-warm, steps):
        obs = observations[i // 10]
        began = time.perf_counter()
        _, memory, info = policy.act(obs, memory)
        times.append(time.perf_counter() - began)
        acted += info["intervened"]
    return np.array(times[warm:]), acted / len(times)


def latencies(times: np.ndarray) -> dict[str, float]:
    """Median, 99th percentile and maximum in ms of seconds [T]."""
    ms = 1e3 * times
    found = {"median": np.median(ms), "p99": np.quantile(ms, 0.99), "max": ms.max()}
    return {name: round(float(value), 4) for name, value in found.items()}


def _draw(channels: list[deploy.Channel], rng: np.random.Generator) -> np.ndarray:
    bounded = [(c["low"], c["high"]) for c in channels]
    drawn = [rng.normal() if None in pair else rng.uniform(*pair) for pair in bounded]
    return np.asarray(drawn, np.float32)


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return None
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model n")), None)


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table(title="one decision at batch 1 on one CPU core")
    heads = (
        "runtime",
        "median ms",
        "p99 ms",
        "max ms",
        "preempted",
        "recovery acts",
        "load s",
        "memory GB",
    )
    for head in heads:
        table.add_column(head, justify="left" if head == "runtime" else "right")
    for row in rows:
        times = [f"{row[f'{name}_ms']:.3f}" for name in ("median", "p99", "max")]
        share = f"{100 * row['intervened_share']:.0f} %"
        ends = (f"{row['load_seconds']:.1f}", f"{row['memory_gb']:.2f}")
        table.add_row(row["runtime"], *times, str(row["preemptions"]), share, *ends)
    return table
