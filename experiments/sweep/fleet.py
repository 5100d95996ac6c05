"""The runs of a sweep in processes of their own: some on this machine, or jobs of Slurm.

First the base runs, then the cells that wait for them. Such a process makes one run and leaves its
result, or a note of what failed, in the sweep's folder; nothing else comes back, and so nothing is
lost with a process, whichever is killed: what has no result is missing, and is made next time.

Slurm starts a job again whose process was killed, whose node died or whose time was up, and it goes
on from its newest checkpoint. Two processes cannot work in one run's folder
(`experiments.runs.folder.RunFolder`), and a run that has its result is not begun again.
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
"""Slurm tells a job this long before its time is up."""
MAX_RESTARTS = 10
"""So often a job that was killed or ran out of time is queued again."""

_OURS = ("array", "dependency", "signal", "output", "error")
_AFTERWARDS = (
    "status=$?",  # above 128: ended by a signal
    f"if [ $status -gt 128 ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {MAX_RESTARTS} ]; then",
    "  scontrol requeue $SLURM_JOB_ID",
    "fi",
    "exit $status",
)


def check(args: SweepArgs) -> None:
    """Refuse what cannot work before anything is written."""
    if args.executor == "local":
        for field in dataclasses.fields(args):
            ours = field.name.startswith("slurm_") or field.name == "submit_only"
            if ours and getattr(args, field.name) != field.default:
                raise UserError(f"--{field.name.replace('_', '-')} is for --executor slurm")
        return
    if args.workers > 1:
        raise UserError("--workers is for --executor local: Slurm decides how many jobs run")
    _extra(args.slurm_extra)
    if shutil.which("sbatch") is None:
        raise UserError(
            "--executor slurm: there is no sbatch here; run it where Slurm's commands are"
        )
    if importlib.util.find_spec("submitit") is None:
        raise UserError("--executor slurm needs submitit: pip install 'farl-jax[slurm]'")


def make_all(args: SweepArgs, missing: Missing, console: Console) -> bool:
    """Have everything made that is missing; False if it was only submitted."""
    if args.executor == "local":
        _make_here(args, missing, console)
        return True
    jobs = _submit_all(args, missing, console)
    if args.submit_only:
        console.print("submitted; the same command without --submit-only gathers the results")
        return False
    _wait(jobs, console)
    return True


@functools.cache
def _sweep_of(args: SweepArgs) -> Any:
    """One for all that this process makes: it compiles its programs once."""
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
            console.print("a worker was killed: the same command goes on", style="red")


def _make(args: SweepArgs, name: str) -> bool:
    return _sweep_of(args).make(name)


def _begin_worker(workers: int, given: Any, parent: int) -> None:
    """Take a share of the cores, before JAX starts its threads, and end when the parent does."""
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
    """A job: make one base run or cell. Exit code 1 if that failed, above 128 to start again.

    Preempted (SIGTERM) or out of time (SIGUSR2) it saves first.
    """
    streams.steady()
    words = ("sweep", "-o", str(args.out))
    if code := signals.guarded(words, lambda: 0 if _make(args, name) else 1):
        sys.exit(code)


def _submit_all(args: SweepArgs, missing: Missing, console: Console) -> dict[str, str]:
    """Submit what nobody makes yet; name -> job of all that is in the queue now."""
    ledger = args.out / "slurm" / "jobs.json"
    queued = _queued()
    if queued is None:
        raise UserError("squeue does not answer: is Slurm's controller running?")
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
    """An array job, one task for each name, that starts when the jobs `after` have ended."""
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
    """Lines of a job before its Python starts: as here, no code comes from the current folder."""
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
            raise UserError(f"--slurm-extra {word}: expected KEY=VALUE, and not {', '.join(_OURS)}")
        options[key] = value if equals else True
    return options


def _queued() -> set[str] | None:
    """The user's jobs that wait or run, tasks of arrays one by one; None if nobody answers."""
    words = ["squeue", "--me", "--noheader", "--array", "--format=%i"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return set(asked.stdout.split()) if asked.returncode == 0 else None


def _wait(jobs: Mapping[str, str], console: Console) -> None:
    """Until none of the jobs is in the queue. To stop waiting does nothing to them."""
    left = set(jobs.values())
    while left:
        queued = _queued()
        now = left if queued is None else left & queued
        if now != left:
            console.print(f"{len(now)} of {len(jobs)} jobs left", highlight=False)
        left = now
        if left:
            time.sleep(POLL_SECONDS)
