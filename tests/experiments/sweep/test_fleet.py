"""Sweeps made by other processes: who makes what, what they leave, and refusals in one line."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from envs_mjx.physics.native import cores as native_cores
from experiments.arguments import SweepArgs
from experiments.cli import main
from experiments.errors import UserError
from experiments.runs.folder import RunFolder
from experiments.runs.run import start_run
from experiments.sweep import fleet
from experiments.sweep.cells import Sweep
from farl_jax.schema import SchemaError
from tests.experiments.finished_runs import result

GRID = ("safety.max_risk=1e-3,1e-2",)


def sweep_of(out: Path, **changes) -> Sweep:
    args = SweepArgs(**{"out": out, "set": GRID, "preset": "smoke"} | changes)
    return Sweep(args, "farl sweep", Console(width=110), alone=False)


def finish(sweep: Sweep, number: int, method: str) -> None:
    """A method of a cell that ran before, as far as a sweep looks at it."""
    cell = sweep.cells[number]
    run, folder = start_run(cell.path, cell.settings, None, resume=True)
    folder.close()
    row = result("bounded_push", method, cell.settings.seed, 1, 50.0, preset="smoke")
    (run.path / method).mkdir()
    (run.path / method / "result.json").write_text(json.dumps(row))


def test_what_is_missing_is_named_once_and_equal_runs_are_made_once(tmp_path):
    bases = ["base/smoke/seed0", "base/smoke/seed1"]
    names = [f"safety.max_risk={x}/seed{seed}" for x in ("0.001", "0.01") for seed in (0, 1)]
    assert sweep_of(tmp_path, seeds=2).missing() == (bases, names)
    ungated = sweep_of(tmp_path, seeds=2, method=("uni_o4",))
    assert ungated.missing() == (bases, names[:2])  # the others differ in the gate alone
    finish(ungated, 3, "uni_o4")  # cell 3 counts for cell 1, but cells 0 and 2 need theirs
    assert ungated.missing() == (bases, names[:1])
    finish(ungated, 0, "uni_o4")
    finish(ungated, 1, "uni_o4")
    assert ungated.missing() == ([bases[0]], [])  # cell 2 takes cell 0's; it asks for a base
    finish(ungated, 2, "uni_o4")
    assert ungated.missing() == ([], [])


def test_together_a_process_makes_all_seeds_and_thresholds_of_a_setting(tmp_path):
    grid = (*GRID, "safety.horizon=1,3")
    sweep = sweep_of(tmp_path, seeds=2, together=True, set=grid)
    bases, groups = sweep.missing()
    assert (len(bases), groups) == (2, ["safety.horizon=1", "safety.horizon=3"])
    risks = [cell.swept["safety.max_risk"] for cell in sweep.groups[groups[1]]]
    assert risks == [0.001, 0.001, 0.01, 0.01]
    for cell in sweep.groups[groups[0]]:
        finish(sweep, sweep.cells.index(cell), "uni_o4")
        finish(sweep, sweep.cells.index(cell), "farl")
    assert sweep.missing() == (bases, groups[1:])
    assert not sweep.make(groups[1])
    notes = [path.relative_to(tmp_path / "failed") for path in tmp_path.glob("failed/**/*.json")]
    assert notes == [Path(groups[1]) / "farl.json"]  # without a gate it is as the first
    assert {row["cell"] for row in sweep.run()} == {c.name for c in sweep.groups[groups[1]]}
    assert len(sweep.rows) == 8
    alone = sweep_of(tmp_path / "b", seeds=2, together=True)  # nothing but thresholds differs
    assert alone.missing() == (bases, ["together"])


def test_of_equal_cells_that_train_together_only_one_trains(tmp_path, monkeypatch):
    sweep, trained = sweep_of(tmp_path, together=True, method=("uni_o4",)), []
    monkeypatch.setattr(sweep, "_base", lambda cell: tmp_path)
    monkeypatch.setattr("experiments.sweep.cells.take", lambda *args: None)

    def train(runs, method):
        trained.extend(run.path.parent.name for run in runs)
        for run in runs:
            result = run.path / method / "result.json"
            result.parent.mkdir()
            result.write_text("{}")

    monkeypatch.setattr(sweep, "_train", train)
    sweep._finish(sweep.cells, "uni_o4")
    assert trained == ["safety.max_risk=0.001"]
    assert all((cell.path / "uni_o4" / "result.json").is_file() for cell in sweep.cells)


def test_a_manifest_says_what_is_there_and_what_is_done(tmp_path):
    sweep = sweep_of(tmp_path)
    finish(sweep, 1, "farl")
    sweep.write_manifest()
    told = json.loads((tmp_path / "manifest.json").read_text())
    assert told["methods"] == ["uni_o4", "farl"] and told["command"] == "farl sweep"
    first, second = told["cells"]
    assert (first["done"], second["done"]) == ([], ["farl"])
    assert first["swept"] == {"safety.max_risk": 1e-3} and first["base"] == "base/smoke/seed0"
    assert first["settings"] == sweep.cells[0].settings.to_json()


def test_a_failure_elsewhere_is_noted_there_and_gathered_here(tmp_path):
    """The base run's folder is a stranger's; cells do not try to make it, nor do they wait."""
    base = tmp_path / "base" / "smoke" / "seed0"
    base.mkdir(parents=True)
    (base / "notes.txt").write_text("mine")
    there, here = sweep_of(tmp_path, method=("farl",)), sweep_of(tmp_path, method=("farl",))
    assert not there.make("safety.max_risk=0.001/seed0")  # before its base said anything
    note = tmp_path / "failed" / "safety.max_risk=0.001" / "seed0" / "farl.json"
    assert "ended without a message" in json.loads(note.read_text())["error"]
    assert not there.make("base/smoke/seed0")
    assert not sweep_of(tmp_path, method=("farl",)).make("safety.max_risk=0.001/seed0")
    assert "notes.txt" in json.loads(note.read_text())["error"]
    failed = here.run()
    assert [row["cell"] for row in failed] == [cell.name for cell in here.cells]
    assert all("notes.txt" in row["error"] and row["traceback"] for row in failed)
    assert json.loads((tmp_path / "manifest.json").read_text())["cells"][0]["done"] == []
    assert [path.name for path in base.iterdir()] == ["notes.txt"]


def test_a_killed_process_is_a_failure_of_its_cell_until_it_has_a_result(tmp_path):
    args = SweepArgs(out=tmp_path, set=GRID, preset="smoke", method=("farl",))
    assert fleet.make_all(args, lambda: ([], []), Console()) is True
    sweep = sweep_of(tmp_path, method=("farl",))
    finish(sweep, 0, "farl")
    (failed,) = sweep.run()
    assert failed["cell"] == sweep.cells[1].name and "run the command again" in failed["error"]
    assert len((tmp_path / "sweep.jsonl").read_text().splitlines()) == 1


def test_spoiled_notes_and_results_are_failures_of_their_cells_and_a_ledger_one_line(
    tmp_path, monkeypatch
):
    sweep = sweep_of(tmp_path, method=("farl",), seeds=2)
    for number in (0, 1, 2):
        finish(sweep, number, "farl")
    (sweep.cells[0].path / "farl" / "result.json").write_text("null")
    shutil.copytree(sweep.cells[1].path / "farl", sweep.cells[2].path / "farl", dirs_exist_ok=True)
    for seed in (0, 1):
        note = tmp_path / "failed" / "base" / "smoke" / f"seed{seed}.json"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text('{"error": 3}')
    told = {row["cell"]: row["error"] for row in sweep.run()}
    first, second, third, last = (cell.name for cell in sweep.cells)
    assert "result.json: it must be a group of fields; got null" in told.pop(first)
    assert "seed is 0 in config.json and 1 in the result" in told.pop(third)
    assert "seed1.json: error must be text; got 3" in told.pop(last)
    assert not told and [row["cell"] for row in sweep.rows] == [second]

    ledger = tmp_path / "slurm" / "jobs.json"
    ledger.parent.mkdir()
    ledger.write_text('{"a": 3}')
    monkeypatch.setattr(fleet, "_queued", set)
    with pytest.raises(SchemaError, match=r"jobs.json: a must be text; got 3"):
        fleet._submit_all(sweep.args, lambda: ([], []), Console())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--executor", "slurm"], "--executor slurm needs sbatch"),
        (["--executor", "slurm", "--workers", "2"], "--workers needs --executor local"),
        (["--executor", "slurm", "--slurm-time", "1"], "--slurm-time must be at least 5; got 1"),
        (["--executor", "slurm", "--slurm-cpus", "0"], "--slurm-cpus must be at least 1"),
        (["--executor", "slurm", "--slurm-extra", "array=0-9"], "got array=0-9"),
        (["--executor", "slurm", "--slurm-extra", "=9"], "--slurm-extra must be KEY=VALUE"),
        (["--executor", "ray"], "executor"),
        (["--workers", "0"], "--workers must be at least 1"),
        (["--slurm-gpus", "1"], "--slurm-gpus needs --executor slurm"),
        (["--submit-only"], "--submit-only needs --executor slurm"),
    ],
)
def test_what_cannot_work_is_one_line_before_anything_is_written(
    capsys, tmp_path, monkeypatch, words, said
):
    monkeypatch.setenv("PATH", str(tmp_path))
    grid = ["--preset", "smoke", "--set", GRID[0], "-o", str(tmp_path / "out")]
    assert main(["sweep", *grid, *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert list(tmp_path.iterdir()) == []


def answering(folder: Path, name: str, text: str, code: int) -> str:
    """A PATH on which this command answers so."""
    folder.mkdir(exist_ok=True)
    command = folder / name
    command.write_text(f"#!/bin/sh\n{text}\nexit {code}\n")
    command.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_without_submitit_one_line_says_how_to_get_it(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    monkeypatch.setenv("PATH", answering(tmp_path, "sbatch", "true", 0))
    words = ["--preset", "smoke", "--set", GRID[0], "--executor", "slurm"]
    assert main(["sweep", *words, "-o", str(tmp_path / "out")]) == 2
    assert "pip install 'farl-jax[slurm]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_other_options_of_sbatch_are_handed_on():
    assert fleet._extra(("account=mine", "--mem=4G", "exclusive", "comment=a=b")) == {
        "account": "mine",
        "mem": "4G",
        "exclusive": True,
        "comment": "a=b",
    }


def test_the_lock_of_a_slurm_job_moves_with_it_and_ends_with_it(tmp_path, monkeypatch):
    """Job 17 was killed with its node; it starts again elsewhere, or never."""
    run, path = tmp_path / "run", os.environ["PATH"]
    RunFolder.create(run, {}).close()
    take = lambda: RunFolder.create(run, {}, resume=True)
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    held = take()
    owner = (run / "run.lock").read_text()
    assert owner == f"{os.getpid()} slurm-job-17\n"
    with pytest.raises(UserError, match=r"in use by process \d+ on slurm-job-17; wait"):
        take()  # alive: nobody else, not even the same job
    held.close()

    left = lambda: (run / "run.lock").write_text("7 slurm-job-17\n")
    left()
    take().close()
    for job in ("18", None):
        monkeypatch.setenv("SLURM_JOB_ID", job) if job else monkeypatch.delenv("SLURM_JOB_ID")
        for text, code in (("echo RUNNING", 0), ("echo timed out >&2", 1)):
            left()
            monkeypatch.setenv("PATH", answering(tmp_path / "bin", "squeue", text, code))
            with pytest.raises(
                UserError, match="process 7 on slurm-job-17; if that process has ended"
            ):
                take()
        for text, code in (("true", 0), ("echo slurm_load_jobs error: Invalid job id >&2", 1)):
            left()
            monkeypatch.setenv("PATH", answering(tmp_path / "bin", "squeue", text, code))
            take().close()
        monkeypatch.setenv("PATH", path)


def test_a_worker_has_its_share_of_the_cores_and_ends_with_its_parent():
    """Process A starts worker B and is killed: B takes a core of two, and is gone soon after."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    code = f"""
import multiprocessing, os, time
from experiments.sweep.fleet import _begin_worker
os.sched_setaffinity(0, {cores!r})
if os.fork() == 0:
    _begin_worker(2, multiprocessing.get_context("spawn").Value("i", 1), os.getppid())
    print(sorted(os.sched_getaffinity(0)), flush=True)
    time.sleep(60)
time.sleep(60)
"""
    words = [sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as parent:
        share = parent.stdout.readline().strip()
        parent.kill()
        assert parent.stdout.read() == ""  # ends when the worker does, too
    assert share == str(cores[1:] or cores)


def test_native_physics_takes_no_more_cores_than_the_process_has():
    cores = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert native_cores() == 1
    finally:
        os.sched_setaffinity(0, cores)
    assert native_cores() == len(cores)
