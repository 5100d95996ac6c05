"""Real sweeps that lose processes, a node or their time end as if nothing had happened.

The Slurm is a real one, on this machine (`slurm_cluster.py`): `pytest -m slurm`.
"""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.experiments.sweep.slurm_cluster import Cluster, wait_until

ROOT = Path(__file__).parents[3]
RISKS = tuple(f"{0.03 * i:.2f}" for i in range(1, 13))
TINY = (
    *("online.env_steps=2048", "online.checkpoint_every=512", "online.eval_every=2048"),
    *("online.eval_episodes=4", "online.final_episodes=4"),
)
SLURM = ("--executor", "slurm", "--slurm-time", "60")
STARTED: list[subprocess.Popen] = []
MINUTES = pytest.mark.timeout(3600)


def start(out: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    """`farl sweep` in a process of its own; what it says is added to `<out>.log`."""
    command = [sys.executable, "-m", "experiments", "sweep", "-o", str(out)]
    settings = [word for field in TINY for word in ("--set", field)]
    command += ["--preset", "smoke", "--method", "farl", *settings, *words]
    environment = os.environ | (env or {})
    with out.with_suffix(".log").open("a") as log:
        STARTED.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT, env=environment))
    return STARTED[-1]


def grid(*risks: str) -> tuple[str, str]:
    return "--set", f"safety.max_risk={','.join(risks)}"


def numbers(out: Path) -> dict[float, dict]:
    """Risk -> row, but for what no two runs have in common."""
    rows = [json.loads(line) for line in (out / "sweep.jsonl").read_text().splitlines()]
    other = ("wall_seconds", "command", "git")
    return {
        row["safety.max_risk"]: {k: v for k, v in row.items() if k not in other} for row in rows
    }


def cells(out: Path) -> list[dict]:
    manifest = out / "manifest.json"
    return json.loads(manifest.read_text())["cells"] if manifest.exists() else []


def done(out: Path) -> list[str]:
    return [c["cell"] for c in cells(out) if (out / c["cell"] / "farl" / "result.json").exists()]


def in_training(out: Path) -> list[str]:
    """Cells that have saved something and are not finished."""
    saved = [c["cell"] for c in cells(out) if any((out / c["cell"]).glob("farl/checkpoints/512"))]
    return sorted(set(saved) - set(done(out)))


def check_all_ended_once(out: Path, told: str, undisturbed: Path) -> None:
    assert numbers(out) == numbers(undisturbed)
    assert [c["done"] for c in cells(out)] == [["farl"]] * len(RISKS)
    ends = Counter(re.findall(r"finished: (\S+) farl", told))
    assert max(ends.values()) == 1
    assert sum(ends.values()) >= len(RISKS) - 3  # a kill may come before the line, after the end


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Path:
    """All cells, one after the other, in peace."""
    out = tmp_path_factory.mktemp("undisturbed") / "sweep"
    assert start(out, *grid(*RISKS)).wait() == 0
    assert len({row["final_return"] for row in numbers(out).values()}) > 3
    return out


@pytest.fixture(autouse=True)
def nothing_runs_on():
    yield
    for process in STARTED:
        process.kill()
        process.wait()


@pytest.fixture
def out(undisturbed, tmp_path) -> Path:
    """A sweep's folder that holds the base run and nothing else."""
    shutil.copytree(undisturbed / "base", tmp_path / "sweep" / "base")
    return tmp_path / "sweep"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    pytest.importorskip("submitit")
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "unshare")
    if lacking := [name for name in programs if shutil.which(name) is None] or os.geteuid():
        pytest.skip(f"needs root, slurm-wlm and munge: {lacking}")
    with Cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        yield cluster


@pytest.mark.slow
@MINUTES
def test_the_whole_command_is_killed_three_times(undisturbed, out):
    draw = random.Random(0)
    for before in sorted(draw.sample(range(len(RISKS) - 1), 3)):
        sweep = start(out, *grid(*RISKS))
        wait_until("a cell", lambda k=before: len(done(out)) >= k and in_training(out), 900)
        time.sleep(draw.uniform(0, 2))
        assert sweep.poll() is None
        sweep.kill()
        sweep.wait()
    assert start(out, *grid(*RISKS)).wait() == 0
    told = out.with_suffix(".log").read_text()
    assert told.count("resumed at step") >= 2  # the third may hit an end
    check_all_ended_once(out, told, undisturbed)


@pytest.mark.slow
@MINUTES
def test_two_workers_make_what_one_process_makes(undisturbed, out):
    risks = RISKS[:3]
    assert start(out, *grid(*risks), "--workers", "2").wait() == 0
    expected = numbers(undisturbed)
    assert numbers(out) == {float(risk): expected[float(risk)] for risk in risks}


@pytest.mark.slurm
@MINUTES
def test_jobs_lose_a_process_a_node_and_their_time(undisturbed, out, cluster):
    draw, hit = random.Random(1), []
    waiting = start(out, *grid(*RISKS), *SLURM, env=cluster.environment)
    jobs = wait_until("jobs", lambda: ledger(out), 120)

    def next_job(before: int) -> str:
        at_work = lambda: len(done(out)) >= before and set(in_training(out)) - set(hit)
        hit.append(draw.choice(sorted(wait_until("a cell in training", at_work, 900))))
        return jobs[hit[-1]]

    job = next_job(0)
    os.kill(wait_until("its process", lambda: cluster.task(job), 10), signal.SIGKILL)

    node = cluster.command(
        "squeue", "--noheader", "--format=%N", "-j", next_job(len(RISKS) // 4)
    ).strip()
    cluster.kill_node(node)
    wait_until("Slurm to notice", lambda: "down" in cluster.states()[node], 120)
    cluster.start_node(node)

    # as when its time is up; scancel asks again while the job is on its way back into the queue
    with contextlib.suppress(subprocess.TimeoutExpired):
        cluster.command("scancel", "--ctld", "--signal=USR2", next_job(len(RISKS) // 2))

    assert waiting.wait() == 0
    logs = {name: (out / "slurm" / f"{job}_0_log.out").read_text() for name, job in jobs.items()}
    for name in hit:
        assert "resumed at step" in logs[name], name
    assert sum(log.count("Starting with") for log in logs.values()) >= len(RISKS) + 3
    check_all_ended_once(out, "".join(logs.values()), undisturbed)


def ledger(out: Path) -> dict[str, str]:
    """Name -> job of what was submitted."""
    path = out / "slurm" / "jobs.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.slurm
@MINUTES
def test_bases_come_first_and_one_that_fails_costs_its_cells(undisturbed, tmp_path, cluster):
    out = tmp_path / "sweep"
    words = (*grid(RISKS[0]), "--set", "demos.num_envs=16,0", *SLURM)
    assert start(out, *words, "--submit-only", env=cluster.environment).wait() == 0
    jobs = ledger(out)
    assert len(jobs) == 4 and len(done(out)) == 0
    assert start(out, *words, "--submit-only", env=cluster.environment).wait() == 0
    assert ledger(out) == jobs  # all are in the queue: nothing is submitted twice
    assert start(out, *words, env=cluster.environment).wait() == 1
    (row,) = numbers(out).values()
    expected = numbers(undisturbed)[float(RISKS[0])]
    assert row.items() >= {k: v for k, v in expected.items() if k != "cell"}.items()
    (failed,) = map(json.loads, (out / "failed.jsonl").read_text().splitlines())
    assert "demos.num_envs=0" in failed["cell"] and "demos" in failed["traceback"]


@pytest.mark.slurm
@MINUTES
def test_a_cancelled_job_stays_cancelled_and_a_refused_one_is_one_line(out, cluster):
    refused = start(out, *grid(RISKS[0]), *SLURM, "--slurm-partition", "x", env=cluster.environment)
    assert refused.wait() == 2
    (line,) = out.with_suffix(".log").read_text().splitlines()
    assert line.startswith("farl: Slurm refused") and "artition" in line
    waiting = start(out, *grid(RISKS[0]), *SLURM, env=cluster.environment)
    (job,) = wait_until("a job", lambda: ledger(out), 120).values()
    wait_until("its start", lambda: (out / "slurm" / f"{job}_0_log.out").exists(), 120)
    cluster.command("scancel", job)
    assert waiting.wait() == 1
    assert cluster.command("squeue", "--noheader") == ""
    assert "run the command again" in out.with_suffix(".log").read_text()
