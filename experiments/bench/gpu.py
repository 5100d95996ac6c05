"""`farl bench gpu`: all that only an accelerator can tell, in stages, at most 25 minutes a call.

Each stage is a process with a time limit (`gpu_stages`). `<out>/kit.json` records each stage as it
ends. The same command skips what is done and tries the rest again. A training run that was stopped
by its limit then goes on from its checkpoint. A stage that fails costs only its own rows.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.arguments_bench import BenchGpuArgs
from experiments.bench.gpu_page import write_page
from experiments.bench.gpu_stages import DRY, FULL, Stage, stages
from experiments.errors import UserError
from experiments.process.machine import describe_environment
from experiments.process.outputs import check_output_folder, write_json
from experiments.search_path import ROOT

KIT, GATHERED = "kit.json", "gpu.json"
GRACE = 12.0
"""Seconds between a stage's signal and its end; part of its limit."""
LEAST_SECONDS = 30.0
"""A stage is not started with less time left."""
_STARTS = {
    "farl": ("-c", "import sys; from experiments.cli import main; sys.exit(main())"),
    "pytest": ("-m", "pytest"),
}


def run(args: BenchGpuArgs, console: Console) -> dict[str, Any]:
    """Run the stages that are not done, and write `gpu.json`, `gpu.md` and the figures.

    Raises:
        UserError: there is no accelerator, or no stage could be done.
    """
    about = describe_environment()
    if about["device"]["platform"] == "cpu" and not args.dry:
        raise UserError("JAX finds no accelerator here; --dry tries all stages on a CPU")
    out = args.out or Path("runs/gpu-dry" if args.dry else "results/bench/gpu")
    check_output_folder("--out", out)
    wanted = stages(DRY if args.dry else FULL, out)
    ended = make_all(wanted, out, args.minutes * 60.0, console)
    found = gather(wanted, ended) | {"environment": about, "dry": args.dry}
    write_json(out / GATHERED, found)
    write_page(out, found, console)
    if not any(row["state"] == "done" for row in ended.values()):
        raise UserError(f"no stage could be done; {out / KIT} has each one's reason")
    return found


def make_all(
    wanted: Sequence[Stage], out: Path, seconds: float, console: Console
) -> dict[str, dict[str, Any]]:
    """Run stages within `seconds` in all, and return each one's record by name.

    A record is {kind, command, state: done, failed or left, seconds, cpu_seconds, reason: one line
    or None}. It is in `<out>/kit.json` as soon as the stage has ended.
    """
    started, path = time.monotonic(), out / KIT
    known = _read(path).get("stages", {})
    ended: dict[str, dict[str, Any]] = {}
    for number, stage in enumerate(wanted, 1):
        before = known.get(stage.name, {})
        if before.get("state") == "done" and before.get("command") == list(stage.command):
            ended[stage.name] = before
        else:
            left = seconds - (time.monotonic() - started)
            ended[stage.name] = do(stage, min(stage.limit, left))
        record = ended[stage.name]
        line = f"{number:>2} of {len(wanted)}  {stage.name:<32} {record['state']:<7}"
        line += f"{record['seconds']:>5.0f} s  {record['reason'] or ''}"
        console.print(line.rstrip(), highlight=False, soft_wrap=True)
        write_json(path, {"stages": known | ended})
    return ended


def do(stage: Stage, seconds: float) -> dict[str, Any]:
    """Run one stage for at most `seconds`, and return its record."""
    record = {"kind": stage.kind, "command": list(stage.command)}
    if seconds < min(LEAST_SECONDS, stage.limit):
        spent = {"seconds": 0.0, "cpu_seconds": 0.0}
        return record | spent | {"state": "left", "reason": "no time was left"}
    started, busy = time.monotonic(), _cpu_seconds()
    code, output, errors = _process(stage.command, seconds)
    record["seconds"] = round(time.monotonic() - started, 1)
    record["cpu_seconds"] = round(_cpu_seconds() - busy, 1)
    if code is None:
        reason = f"stopped after its {seconds:.0f} s; the same command goes on"
        return record | {"state": "failed", "reason": reason}
    if code:
        lines = errors.strip().splitlines() or output.strip().splitlines() or [f"exit code {code}"]
        return record | {"state": "failed", "reason": lines[-1].removeprefix("farl: ")[:300]}
    told = output.strip().splitlines()[-1].strip("= ") if stage.kind == "tests" else None
    return record | {"state": "done", "reason": told}


def _process(command: Sequence[str], seconds: float) -> tuple[int | None, str, str]:
    """(exit code, or None if time was up; stdout; stderr) of a process and its children."""
    path = os.pathsep.join(filter(None, [ROOT, os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        [sys.executable, *_STARTS[command[0]], *command[1:]],
        env=os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = child.communicate(timeout=max(1.0, seconds - GRACE))
        return child.returncode, output, errors
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=GRACE)
        return None, "", ""
    finally:  # also where this process is stopped
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _cpu_seconds() -> float:
    """CPU time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def gather(wanted: Sequence[Stage], ended: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return {stages, physics, loop, seeds, run}: records, and the rows of each kind of stage.

    A stage that failed still gives the rows that it had written.
    """
    rows: dict[str, list[Any]] = {kind: [] for kind in ("physics", "loop", "seeds", "run")}
    for stage in wanted:
        found = {} if stage.rows is None else _read(stage.rows)
        if found:
            rows[stage.kind] += found.get("rows", [found])
    return {"stages": ended} | rows


def _read(path: Path) -> dict[str, Any]:
    """A JSON file, or {} if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); remove it to measure again") from error
