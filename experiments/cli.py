"""`farl`: one command line for every phase. User errors are one line on stderr and exit code 2."""

import contextlib
import io
import re
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro

from experiments import signals
from experiments.arguments import (
    BenchArgs,
    BenchTrainArgs,
    HorizonArgs,
    OnlineArgs,
    PhaseArgs,
    ReportArgs,
    SweepArgs,
    TasksArgs,
)
from experiments.console import one_line, plain_console, warn
from experiments.jax_settings import find_devices
from experiments.presets import RunSettings, check, preset
from experiments.runtime import UserError, disk_errors, peak_memory_gb, prepare_jax
from farl_jax.config import FarlConfig


@dataclass(frozen=True)
class StartArgs:
    """Start a run, or go on with it."""

    task: str = "bounded_push"
    """A FailureBench task, or module:Class of your own (docs/own_task.md)."""
    preset: str = "quick"
    """Budget: smoke, quick or paper. Any number of it can be changed by the options below."""
    seed: int = 0
    """First seed."""
    seeds: int = 1
    """How many seeds, each in a folder of its own; one after the other, but for --together."""
    together: bool = False
    """Train all seeds of a method online at once, as one compiled program."""
    devices: int = 1
    """Spread the online phase over this many devices: seeds of --together, then environments."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    out: Path | None = None
    """Folder of the run. Default: runs/<task>/<preset>."""
    resume: bool = False
    """Keep what is finished and go on from the newest checkpoint."""
    config: Annotated[FarlConfig, tyro.conf.arg(name="")] = field(default_factory=FarlConfig)


@dataclass(frozen=True)
class ReproduceArgs:
    """Run what the paper's main figures need, and draw them beside the paper's."""

    figure: Literal["failures", "returns", "both"] = "both"
    """Which figure to draw."""
    task: tuple[str, ...] = ()
    """Tasks; none means all of FailureBench."""
    seed: int = 0
    """First seed."""
    seeds: int = 3
    """How many seeds."""
    method: tuple[str, ...] = ()
    """Methods besides uni_o4 and farl."""
    all: bool = False
    """All methods: the safe-RL baselines and the ablations, too."""
    together: bool = False
    """Train all seeds of a method online at once, as one compiled program."""
    preset: str = "paper"
    """Budget of each run."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    runs: Path = Path("runs")
    """Where runs are looked for and made, as <task>/<preset>/seed<N>."""
    out: Path = Path("results")
    """Folder of main.jsonl and the figures."""
    stored: bool = False
    """Run nothing: tables and figures of all the rows in --out."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = lambda message, *_: warn(message)
    if "" not in sys.path:
        sys.path.insert(0, "")  # a task of the user's own is found from here, as by `python -m`
    try:
        return signals.guarded(words, lambda: _dispatch(words))
    except Exception as error:
        line = _user_line(error)
        if line is None:
            raise
        print(f"farl: {line}", file=sys.stderr)
        return 2


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return 0
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), words[0])
    rest = words[len(name.split()) :]
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: choose one of {', '.join(COMMANDS)}")
    kind, command, _ = COMMANDS[name]
    arguments = _parse(kind, name, rest)
    if arguments is None:
        return 0
    prepare_jax()
    if name != "report":  # which reads files alone
        find_devices()
    if jax.distributed.is_initialized() and name != "online":
        raise UserError(f"several processes share `farl online` only: run farl {name} in one")
    with disk_errors(Path(".")):
        return command(arguments) or 0


def _parse(kind: type, name: str, words: list[str]) -> Any:
    """Arguments of one command, None after --help; a bad word becomes a UserError."""
    default = None
    if kind is StartArgs:
        chosen = {k: _peek(words, f"--{k}") or getattr(StartArgs, k) for k in ("preset", "task")}
        default = StartArgs(config=preset(chosen["preset"], chosen["task"]))
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            return tyro.cli(kind, prog=f"farl {name}", args=words, default=default)
    except SystemExit as stop:
        if stop.code == 0:
            print(text.getvalue())
            return None
        raise UserError(f"{_essence(text.getvalue())}; see farl {name} --help") from None


def _essence(box: str) -> str:
    """The message inside tyro's box, on one line."""
    parts = re.split(r"^[\s│|]*[-─]{8,}.*$", box, flags=re.MULTILINE)
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", parts[1 if len(parts) > 1 else 0]).split())


def _peek(words: list[str], option: str) -> str | None:
    for i, word in enumerate(words):
        if word == option and i + 1 < len(words):
            return words[i + 1]
        if word.startswith(option + "="):
            return word.split("=", 1)[1]
    return None


def _user_line(error: Exception) -> str | None:
    """One line for an error that its user can put right, None for a fault of ours."""
    from envs_mjx import EnvError
    from envs_mjx.render import RenderError
    from farl_jax.checkpoint import CheckpointError
    from farl_jax.dataset import DatasetError
    from farl_jax.devices import DeviceError

    ours = UserError | EnvError | RenderError | CheckpointError | DatasetError | DeviceError
    return one_line(error) if isinstance(error, ours) else None


def _usage() -> str:
    lines = [f"  {name:<15}{text}" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(["usage: farl COMMAND [options]", "", *lines, "", "farl COMMAND --help"])


def _seed_folders(args: StartArgs) -> tuple[Path, list[tuple[Path, RunSettings]]]:
    root = args.out or Path("runs") / args.task.replace(":", ".") / args.preset
    settings = [
        RunSettings(args.task, args.preset, seed, args.backend, args.config)
        for seed in range(args.seed, args.seed + args.seeds)
    ]
    if not settings:
        raise UserError(f"--seeds is {args.seeds}: at least 1 is needed")
    return root, [(root / f"seed{s.seed}", s) for s in settings]


def command_run(args: StartArgs) -> None:
    """All phases, both methods, table, plot and film."""
    from experiments import run_eval, run_online, run_render
    from experiments.decoration import decoration
    from experiments.judge import Judge
    from experiments.run import start_runs
    from farl_jax import devices

    started = time.perf_counter()
    root, runs = _seed_folders(args)
    for _, settings in runs:
        check(settings)
    together = len(runs) if args.together else 1
    devices.check(args.devices, together, args.config.online.num_envs)
    console = plain_console()
    alone, *others = [runs] if args.together else [[one] for one in runs]
    with start_runs(alone, console, resume=args.resume) as first:
        judge = Judge(first[0], args.config)
        run_online.all_phases(first, judge, num_devices=args.devices)
        for group in others:
            with start_runs(group, console, resume=args.resume) as seeds:
                run_online.all_phases(seeds, judge, num_devices=args.devices)
        run_eval.compare(root, [path for path, _ in runs], console)
        with decoration("film", f"then farl render {first[0].path} makes it"):
            run_render.film(first[0], "farl")
    minutes = (time.perf_counter() - started) / 60
    console.print(
        f"{minutes:.1f} min, peak memory {peak_memory_gb():.1f} GB", highlight=False, soft_wrap=True
    )


def command_reproduce(args: ReproduceArgs) -> None:
    """The paper's main figures."""
    from envs_mjx import TASKS
    from experiments import reproduce
    from experiments.run_online import find_method
    from farl_jax.methods import MAIN, METHODS

    figures = ("failures", "returns") if args.figure == "both" else (args.figure,)
    command = " ".join(["farl", *sys.argv[1:]])
    if args.stored:
        own = ReproduceArgs(figure=args.figure, preset=args.preset, out=args.out, stored=True)
        if args != own:
            raise UserError("--stored draws all rows: only --figure, --preset, --out go with it")
        return reproduce.redraw(args.out, args.preset, figures, command, plain_console())
    for name in args.method:
        find_method(name)
    methods = tuple(METHODS) if args.all else tuple(dict.fromkeys((*MAIN, *args.method)))
    seeds = tuple(range(args.seed, args.seed + args.seeds))
    if not seeds:
        raise UserError(f"--seeds is {args.seeds}: at least 1 is needed")
    tasks = args.task or tuple(TASKS)
    for task in tasks:
        config = preset(args.preset, task)
        check(RunSettings(task, args.preset, args.seed, args.backend, config))
    plan = reproduce.Plan(
        tasks, methods, seeds, args.preset, args.backend, args.runs, args.together
    )
    reproduce.reproduce(plan, figures, args.out, command, plain_console())


def command_sweep(args: SweepArgs) -> int:
    """Runs over a grid of settings; 1 if one of them failed."""
    from experiments import sweep

    return 1 if sweep.sweep(args, " ".join(["farl", *sys.argv[1:]]), plain_console()) else 0


def command_horizon(args: HorizonArgs) -> None:
    """The horizon study of a trained run."""
    from experiments import run_horizon

    run_horizon.check(args.study)
    _on_run(args, lambda run: run_horizon.study(run, args))


def command_report(args: ReportArgs) -> None:
    """One page of everything that the runs hold."""
    from experiments.report import report

    report(args, plain_console())


def command_demos(args: StartArgs) -> None:
    """Demonstrations only; starts the run's folders."""
    from experiments import run_offline
    from experiments.run import start_run

    for path, settings in _seed_folders(args)[1]:
        check(settings)
        run, folder = start_run(path, settings, plain_console(), resume=args.resume)
        with folder:
            run_offline.demos(run)


def _on_run(args: PhaseArgs | HorizonArgs, phase: Any) -> None:
    from experiments.run import open_run

    resume = getattr(args, "resume", True)
    run, folder = open_run(args.run, plain_console(), resume=resume, task=args.task)
    with folder:
        phase(run)


def command_offline(args: PhaseArgs) -> None:
    """The offline phase of a run."""
    from experiments import run_offline

    _on_run(args, run_offline.fit)


def command_online(args: OnlineArgs) -> None:
    """The online phase of a run, one method."""
    from experiments import run_online

    tune = lambda run: run_online.fine_tune([run], args.method, num_devices=args.devices)
    _on_run(args, tune)


def command_evaluate(args: PhaseArgs) -> None:
    """Table and figure from what a run holds."""
    from experiments import run_eval

    _on_run(args, lambda run: run_eval.compare(run.path, [run.path], run.console))


def command_render(args: PhaseArgs) -> None:
    """Film and contact sheet of a method's newest policy."""
    from experiments import run_render

    _on_run(args, lambda run: run_render.film(run, args.method))


def command_diagnose(args: PhaseArgs) -> None:
    """What the world model foresees."""
    from experiments import run_diagnose

    _on_run(args, lambda run: run_diagnose.diagnose(run, args.method))


def command_bench(args: BenchArgs) -> None:
    """Throughput."""
    from experiments import bench

    bench.run(
        args.task,
        args.backends,
        args.num_envs,
        plain_console(),
        out=args.out,
        figure=args.figure,
        metaworld=args.metaworld,
    )


def command_bench_train(args: BenchTrainArgs) -> None:
    """Throughput of the whole online loop."""
    from experiments import bench_train

    bench_train.run(args, plain_console())


def command_tasks(args: TasksArgs) -> None:
    """Scripted controllers of the tasks."""
    from experiments import bench_tasks, task_sheet

    if args.sheet is not None:
        task_sheet.draw(args.sheet, () if args.task == "all" else (args.task,), plain_console())
        return
    bench_tasks.run(args.task, args.episodes, args.out, plain_console())


COMMANDS = {
    "run": (StartArgs, command_run, "everything: demos, offline, both online methods, table, film"),
    "reproduce": (ReproduceArgs, command_reproduce, "the paper's main figures beside ours"),
    "sweep": (SweepArgs, command_sweep, "runs over a grid of settings, and one table of them"),
    "sweep horizon": (
        HorizonArgs,
        command_horizon,
        "horizons of C_H on a trained run, all at once",
    ),
    "report": (ReportArgs, command_report, "one page with tables, figures and films of all runs"),
    "demos": (StartArgs, command_demos, "demonstrations only"),
    "offline": (PhaseArgs, command_offline, "offline learning of a run"),
    "online": (OnlineArgs, command_online, "online fine-tuning of a run, one method"),
    "evaluate": (PhaseArgs, command_evaluate, "table and figure of a run"),
    "render": (PhaseArgs, command_render, "film of a run's gate at work"),
    "diagnose": (PhaseArgs, command_diagnose, "what the world model foresees, as training goes"),
    "bench": (BenchArgs, command_bench, "env steps per second"),
    "bench train": (BenchTrainArgs, command_bench_train, "the whole online loop and its parts"),
    "tasks": (
        TasksArgs,
        command_tasks,
        "success, failure and recovery rates of scripted controllers",
    ),
}


if __name__ == "__main__":
    from experiments.entry import entry

    entry()
