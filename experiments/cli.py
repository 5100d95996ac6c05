"""`farl`: one command line for every phase. User errors are one line on stderr and exit code 2."""

if __name__ == "__main__":  # first: the rest could be shadowed by files of the current folder
    from experiments.__main__ import leave_current_folder_out

    leave_current_folder_out()

import itertools
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments import estimate, options, signals
from experiments.arguments import (
    BenchArgs,
    BenchTrainArgs,
    DemosArgs,
    HorizonArgs,
    OfflineArgs,
    OnlineArgs,
    PhaseArgs,
    ReportArgs,
    ReproduceArgs,
    StartArgs,
    SweepArgs,
    TasksArgs,
)
from experiments.console import one_line, plain_console, warn
from experiments.decoration import decoration
from experiments.presets import RunSettings, check_run, preset
from experiments.runtime import UserError, disk_errors
from farl_jax.methods import MAIN
from farl_jax.schema import SchemaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    warnings.showwarning = lambda message, *_: warn(message)
    try:
        work = _understood(words)
        return 0 if work is None else signals.guarded(words, work)
    except Exception as error:
        line = _user_line(error)
        if line is None:
            raise
        print(f"farl: {line}", file=sys.stderr)
        return 2


def _understood(words: list[str]) -> Callable[[], int] | None:
    """What a command line asks for, JAX imported; None where it asked for help, which is given."""
    if not words or words[0] in ("-h", "--help"):
        print(_usage())
        return None
    if words[0] in ("-V", "--version"):
        _import_jax()
        return _tell_version
    name = next((n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS), words[0])
    if name not in COMMANDS:
        raise UserError(f"unknown command {name!r}: choose one of {', '.join(COMMANDS)}")
    arguments = _parse(COMMANDS[name][0], name, words[len(name.split()) :])
    if arguments is None:
        return None
    _import_jax()
    return lambda: _work(name, arguments)


def _import_jax() -> None:
    """Import JAX, only where it is needed: it takes longer than all else at the start."""
    try:
        import jax  # noqa: F401  reads its variables of the environment
    except ValueError as error:
        raise UserError(f"JAX does not start: {error}; correct or unset it") from error


def _tell_version() -> int:
    from experiments.jax_settings import find_devices
    from experiments.machine import prepare_jax, version_text

    prepare_jax()
    find_devices()
    print(version_text())
    return 0


def _work(name: str, arguments: Any) -> int:
    """Exit code of a command."""
    import jax

    from experiments.jax_settings import find_devices
    from experiments.machine import prepare_jax

    prepare_jax()
    if name != "report":  # which reads files alone
        find_devices()
    if jax.distributed.is_initialized() and name != "online":
        raise UserError(f"several processes share `farl online` only: run farl {name} in one")
    with disk_errors(Path(".")):
        return COMMANDS[name][1](arguments) or 0


def _parse(kind: type, name: str, words: list[str]) -> Any:
    """Arguments of one command, None after --help; a bad word becomes a UserError."""
    default = None
    if issubclass(kind, StartArgs):
        given = {k: _last(words, f"--{k}") for k in ("preset", "task")}
        chosen = {k: getattr(StartArgs, k) if v is None else v for k, v in given.items()}
        default = kind(config=preset(chosen["preset"], chosen["task"]))
    return options.parse(kind, f"farl {name}", words, default)


def _last(words: list[str], option: str) -> str | None:
    """The value of an option that is read before the others, where it stands last."""
    found = None
    for word, after in itertools.pairwise([*words, None]):
        if word == option:
            found = after
        elif word.startswith(option + "="):
            found = word.split("=", 1)[1]
    return found


def _user_line(error: Exception) -> str | None:
    """One line for an error that its user can put right, None for a fault of ours."""
    if isinstance(error, UserError | SchemaError):
        return one_line(error)
    from envs_mjx import EnvError
    from envs_mjx.render import RenderError
    from farl_jax.checkpoint import CheckpointError
    from farl_jax.dataset import DatasetError
    from farl_jax.devices import DeviceError

    if isinstance(error, EnvError | RenderError | CheckpointError | DatasetError | DeviceError):
        return one_line(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)[:200]:
        reason = one_line(error)[:200]
        return f"out of memory ({reason}): lower online.num_envs, batch sizes or network sizes"
    return None


def _usage() -> str:
    lines = [f"  {name:<15}{text}" for name, (_, _, text) in COMMANDS.items()]
    about = ["farl COMMAND --help", "farl --version"]
    return "\n".join(["usage: farl COMMAND [options]", "", *lines, "", *about])


def _seed_folders(args: StartArgs) -> tuple[Path, list[tuple[Path, RunSettings]]]:
    estimate.check_fits(args.config, args.seeds, len(MAIN), insist=args.insist)
    root = args.out or Path("runs") / args.task.replace(":", ".") / args.preset
    settings = [
        RunSettings(args.task, args.preset, seed, args.backend, args.config)
        for seed in range(args.seed, args.seed + args.seeds)
    ]
    return root, [(root / f"seed{s.seed}", s) for s in settings]


def command_run(args: StartArgs) -> None:
    """All phases, both methods, table, plot and film."""
    from experiments import run_eval, run_online, run_render
    from experiments.judge import Judge
    from experiments.machine import peak_memory_gb
    from experiments.run import start_runs
    from farl_jax import devices

    started = time.perf_counter()
    root, runs = _seed_folders(args)
    for _, settings in runs:
        check_run(settings)
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
    from farl_jax.methods import METHODS

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
    tasks = args.task or tuple(TASKS)
    for task in tasks:
        config = preset(args.preset, task)
        estimate.check_fits(config, len(tasks) * args.seeds, len(methods), insist=args.insist)
        check_run(RunSettings(task, args.preset, args.seed, args.backend, config))
    seeds = tuple(range(args.seed, args.seed + args.seeds))
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

    gates = len(args.study.horizons) * len(args.study.gammas) * len(args.study.trigger_rates)
    estimate.check_rollout(gates * args.study.num_envs, args.study.chunk, "--num-envs")
    _on_run(args, lambda run: run_horizon.study(run, args))


def command_report(args: ReportArgs) -> None:
    """One page of everything that the runs hold."""
    from experiments.report import report

    report(args, plain_console())


def command_demos(args: DemosArgs) -> None:
    """Demonstrations only; starts the run's folders."""
    from experiments import run_offline
    from experiments.begin import DEMOS, begin
    from experiments.run import start_run

    _one_way(args)
    for path, settings in _seed_folders(args)[1]:
        check_run(settings)
        again = args.resume or args.overwrite
        run, folder = start_run(path, settings, plain_console(), resume=again)
        with folder:
            run_offline.demos(begin(run, DEMOS, overwrite=args.overwrite))


def _one_way(args: Any) -> None:
    if getattr(args, "resume", False) and getattr(args, "overwrite", False):
        raise UserError("--resume goes on and --overwrite starts afresh: give one of them")


def _on_run(args: PhaseArgs | HorizonArgs, phase: Any) -> None:
    from experiments.run import open_run

    _one_way(args)
    resume = getattr(args, "resume", True)
    run, folder = open_run(args.run, plain_console(), resume=resume, task=args.task)
    with folder:
        phase(run)


def command_offline(args: OfflineArgs) -> None:
    """The offline phase of a run."""
    from experiments import run_offline
    from experiments.begin import OFFLINE, begin

    _on_run(args, lambda run: run_offline.fit(begin(run, OFFLINE, overwrite=args.overwrite)))


def command_online(args: OnlineArgs) -> None:
    """The online phase of a run, one method."""
    from experiments import run_online
    from experiments.begin import begin, online

    run_online.find_method(args.method)

    def tune(run: Any) -> None:
        run = begin(run, online(args.method), overwrite=args.overwrite)
        run_online.fine_tune([run], args.method, num_devices=args.devices)

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

    estimate.check_rollout(max(args.num_envs), 4, "--num-envs")
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

    estimate.check_rollout(max(args.num_envs), 32, "--num-envs")
    bench_train.run(args, plain_console())


def command_tasks(args: TasksArgs) -> None:
    """Scripted controllers of the tasks."""
    from experiments import bench_tasks, task_sheet

    if args.sheet is not None:
        task_sheet.draw(args.sheet, () if args.task == "all" else (args.task,), plain_console())
        return
    estimate.check_rollout(args.episodes, estimate.EPISODE, "--episodes")
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
    "demos": (DemosArgs, command_demos, "demonstrations only"),
    "offline": (OfflineArgs, command_offline, "offline learning of a run"),
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
