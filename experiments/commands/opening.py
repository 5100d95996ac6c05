"""How a command opens runs: their folders, their task, and whether they may go on."""

import dataclasses
import shlex
from pathlib import Path
from typing import Any

from experiments.arguments import (
    ExportArgs,
    HorizonArgs,
    ImportArgs,
    PhaseArgs,
    StartArgs,
)
from experiments.errors import UserError
from experiments.process.console import plain_console
from experiments.runs import estimate
from experiments.runs.environment import FUNCTION, named, task_of
from experiments.runs.presets import RunSettings
from farl_jax.methods import MAIN
from farl_jax.storage.trackers import TRACKERS


def seed_folders(args: StartArgs) -> tuple[Path, list[tuple[Path, RunSettings]]]:
    """Return the folder of all seeds, and each seed's folder and settings."""
    estimate.check_fits(args.config, args.seeds, len(MAIN), insist=args.insist)
    task = task_named(args) or StartArgs.task
    root = args.out or Path("runs") / task.removeprefix(FUNCTION).replace(":", ".") / args.preset
    settings = [
        RunSettings(task, args.preset, seed, args.backend, args.config)
        for seed in range(args.seed, args.seed + args.seeds)
    ]
    return root, [(root / f"seed{s.seed}", s) for s in settings]


def task_named(args: StartArgs | PhaseArgs | HorizonArgs | ExportArgs) -> str | None:
    """Return the task that a command line names by --task or --env."""
    if isinstance(args, ImportArgs):
        return task_of(args.env) if ":" in args.env else args.env
    if args.env is None:
        return args.task
    if args.task not in (None, StartArgs.task):
        raise UserError("--task and --env both name what to train on: give one of them")
    return task_of(args.env)


def say_next(console: Any, what: str, path: Path, task: str, then: str = "") -> None:
    """Print what to do next: the command `what` on the run at `path`, which is on `task`."""
    code = f" {named(task)}" if ":" in task else ""
    line = f"next: farl {what} {shlex.quote(str(path))}{code}{then}"
    console.print(line, soft_wrap=True)


def check_one_way(args: Any) -> None:
    """Refuse --resume together with --overwrite."""
    if getattr(args, "resume", False) and getattr(args, "overwrite", False):
        raise UserError("--resume continues and --overwrite starts again; give only one of them")


def on_run(args: PhaseArgs | HorizonArgs | ExportArgs, phase: Any) -> None:
    """Open the run that `args` name, and do `phase` with it."""
    from experiments.runs.run import open_run
    from farl_jax import devices

    check_one_way(args)
    track = getattr(args, "track", "none")
    TRACKERS[track].check()
    resume = getattr(args, "resume", True)
    run, folder = open_run(args.run, plain_console(), resume=resume, task=task_named(args))
    with folder:
        if isinstance(args, PhaseArgs):
            estimate.check_fits(run.settings.config, methods=1, insist=args.insist)
            track = track if devices.leads() else "none"
            kept = getattr(args, "transitions", 0)
            run = dataclasses.replace(run, verbose=args.verbose, track=track, transitions=kept)
        phase(run)
