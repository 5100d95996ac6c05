"""The runs of a sweep in other processes: on this machine, or as Slurm jobs.

The base runs come first, then the cells. Each process makes one run, and leaves its result or a
note of its failure in the sweep's folder. So a killed process loses nothing: a run without a result
is made by the next command.

Slurm restarts a job that was killed, lost its node or ran out of time. It continues from its newest
checkpoint. Two processes cannot work in one run's folder (`experiments.runs.folder.RunFolder`), and
a finished run is not started again.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import io
import multiprocessing
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rich.console import Console

from experiments.arguments import SweepArgs
from experiments.errors import UserError
from experiments.process import signals, streams
from experiments.process.console import plain_console
from experiments.process.machine import prepare_jax
from experiments.process.outputs import write_json
from experiments.runs.records import Jobs
from experiments.search_path import ROOT
from farl_jax.storage import json_files

Missing = Callable[[], tuple[list[str], list[str]]]
"""Names of the base runs and of the cells that are not made yet."""

POLL_SECONDS = 5.0
SIGNAL_SECONDS = 120
"""Slurm sends its signal this long before a job's time is over."""
MAX_RESTARTS = 10
"""A job that was killed or ran out of time is queued again this often."""

_OURS = ("array", "dependency", "signal", "output", "error")
_AFTERWARDS = (
    "status=$?",  # above 128: ended by a signal
    f"if [ $status -gt 128 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {MAX_RESTARTS} ]; then",
    "  scontrol requeue $SLURM_JOB_ID",
    "fi",
    "exit $status",
)


def check(args: SweepArgs) -> None:
    """Refuse options that cannot work, before anything is written."""
    if args.executor == "local":
        for field in dataclasses.fields(args):
            ours = field.name.startswith("slurm_") or field.name == "submit_only"
            if ours and getattr(args, field.name) != field.default:
                raise UserError(f"--{field.name.replace('_', '-')} needs --executor slurm")
        return
    if args.workers > 1:
        raise UserError("--workers needs --executor local; Slurm decides how many jobs run")
    _extra(args.slurm_extra)
    if shutil.which("sbatch") is None:
        raise UserError("--executor slurm needs sbatch; run it on a host with Slurm's commands")
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--executor slurm needs submitit; pip install 'farl-jax[slurm]'")


def make_all(args: SweepArgs, missing: Missing, console: Console) -> bool:
    """Make all missing runs. Return False if they were only submitted."""
    if args.executor == "local":
        _make_here(args, missing, console)
        return True
    jobs = _submit_all(args, missing, console)
    if args.submit_only:
        console.print("submitted; the same command without --submit-only collects the results")
        return False
    _wait(jobs, console)
    return True


@functools.cache
def _sweep_of(args: SweepArgs) -> Any:
    """One sweep per process, so that programs are compiled once."""
    from experiments.sweep.cells import Sweep

    prepare_jax()
    return Sweep(args, "", plain_console(), alone=False)


# --- on this machine --------------------------------------------------------------------------


def _make_here(args: SweepArgs, missing: Missing, console: Console) -> None:
    spawn = multiprocessing.get_context("spawn")  # JAX's threads do not survive a fork
    for stage in (0, 1):
        names, given = missing()[stage], spawn.Value("i", 0)
        start = (args.workers, given, os.getpid())
        try:
            with ProcessPoolExecutor(args.workers, spawn, _begin_worker, start) as pool:
                list(pool.map(functools.partial(_make, args), names))
        except BrokenProcessPool:
            console.print("a worker was killed; the same command continues", style="red")


def _make(args: SweepArgs, name: str) -> bool:
    return _sweep_of(args).make(name)


def _begin_worker(workers: int, given: Any, parent: int) -> None:
    """Take a share of the cores before JAX starts, and end when the parent ends."""
    streams.steady()
    with given.get_lock():
        number, given.value = given.value, given.value + 1
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number::workers] or cores)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- Slurm ------------------------------------------------------------------------------------


def work(args: SweepArgs, name: str) -> None:
    """Make one base run or cell in a job. Exit code 1 is a failure, above 128 a restart.

    A preempted job (SIGTERM), or one out of time (SIGUSR2), saves first.
    """
    streams.steady()
    words = ("sweep", "-o", str(args.out))
    if code := signals.guarded(words, lambda: 0 if _make(args, name) else 1):
        sys.exit(code)


def _submit_all(args: SweepArgs, missing: Missing, console: Console) -> dict[str, str]:
    """Submit missing runs that are not queued. Return name -> job of all queued ones."""
    ledger = args.out / "slurm" / "jobs.json"
    queued = _queued()
    if queued is None:
        raise UserError("squeue does not answer; check that Slurm's controller is running")
    known = json_files.read(ledger, Jobs) if ledger.exists() else {}
    jobs = {name: job for name, job in known.items() if job in queued}
    arrays = lambda names: sorted({jobs[name].split("_")[0] for name in names if name in jobs})
    bases, cells = missing()
    for stage, names in (("base", bases), ("cell", cells)):
        if new := [name for name in names if name not in jobs]:
            after = arrays(bases) if stage == "cell" else ()
            jobs |= _submit(args, stage, new, after=after)
            write_json(ledger, jobs)
            number = ", ".join(arrays(new))
            console.print(f"{len(new)} {stage} run(s) submitted as job {number}", highlight=False)
    return jobs


def _submit(
    args: SweepArgs, stage: str, names: Sequence[str], *, after: Sequence[str]
) -> dict[str, str]:
    """Submit an array job with one task per name, which starts after the jobs `after`."""
    import submitit

    args = dataclasses.replace(args, out=args.out.absolute())
    executor = submitit.SlurmExecutor(args.out / "slurm")
    executor.update_parameters(
        job_name=f"farl-{stage}",
        partition=args.slurm_partition,
        time=args.slurm_time,
        nodes=1,
        ntasks_per_node=1,
        cpus_per_task=args.slurm_cpus,
        srun_args=[f"--cpus-per-task={args.slurm_cpus}"],  # srun does not take sbatch's
        gpus_per_node=args.slurm_gpus or None,
        dependency=f"afterany:{':'.join(after)}" if after else None,
        signal_delay_s=SIGNAL_SECONDS,
        stderr_to_stdout=True,
        setup=_setup(),
        teardown=list(_AFTERWARDS),
        additional_parameters={"requeue": True, **_extra(args.slurm_extra)},
    )
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            jobs = executor.map_array(functools.partial(work, args), names)
    except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError) as error:
        raise UserError(f"Slurm refused: {error}") from error
    return {name: job.job_id for name, job in zip(names, jobs, strict=True)}


def _setup() -> list[str]:
    """Lines of a job before Python starts. Also there no code comes from the current folder."""
    lines = ["export PYTHONSAFEPATH=1"]
    if os.path.samefile(ROOT, os.curdir):  # a checkout need not be installed
        lines.append(f"export PYTHONPATH={shlex.quote(ROOT)}")
    return lines


def _extra(words: Sequence[str]) -> Mapping[str, Any]:
    """Words "key=value" for sbatch; a word without a value is a flag."""
    options = {}
    for word in words:
        key, equals, value = word.strip().lstrip("-").partition("=")
        if not key or key in _OURS:
            raise UserError(
                f"--slurm-extra must be KEY=VALUE, and not {', '.join(_OURS)}; got {word}"
            )
        options[key] = value if equals else True
    return options


def _queued() -> set[str] | None:
    """The user's waiting and running jobs, with array tasks one by one; None without an answer."""
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(asked.stdout.split()) if asked.returncode == 0 else None


def _wait(jobs: Mapping[str, str], console: Console) -> None:
    """Wait until no job is in the queue. To stop waiting does not stop the jobs."""
    left = set(jobs.values())
    while left:
        queued = _queued()
        now = left if queued is None else left & queued
        if now != left:
            console.print(f"{len(now)} of {len(jobs)} jobs left", highlight=False)
        left = now
        if left:
            time.sleep(POLL_SECONDS)
