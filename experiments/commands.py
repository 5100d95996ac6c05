"""The commands of `farl`: their names, arguments and functions."""

import time
from pathlib import Path
from typing import Any

from experiments.arguments import (
    BenchArgs,
    BenchDeployArgs,
    BenchTrainArgs,
    DemosArgs,
    ExportArgs,
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
from experiments.errors import UserError
from experiments.figures.decoration import decoration
from experiments.process.console import command_typed, plain_console
from experiments.runs import estimate
from experiments.runs.presets import RunSettings, check_run, preset
from farl_jax.methods import MAIN, METHODS, find_method


def _seed_folders(args: StartArgs) -> tuple[Path, list[tuple[Path, RunSettings]]]:
    estimate.check_fits(args.config, args.seeds, len(MAIN), insist=args.insist)
    root = args.out or Path("runs") / args.task.replace(":", ".") / args.preset
    settings = [
        RunSettings(args.task, args.preset, seed, args.backend, args.config)
        for seed in range(args.seed, args.seed + args.seeds)
    ]
    return root, [(root / f"seed{s.seed}", s) for s in settings]


def command_run(args: StartArgs) -> None:
    """Run all phases with both methods, then make table, plot and film."""
    from experiments.phases import online as run_online
    from experiments.phases.judge import Judge
    from experiments.process.machine import peak_memory_gb
    from experiments.runs.run import start_runs
    from experiments.studies import compare, film
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
        compare.compare(root, [path for path, _ in runs], console)
        with decoration("film", f"farl render {first[0].path} makes it later"):
            film.film(first[0], "farl")
    minutes = (time.perf_counter() - started) / 60
    console.print(
        f"{minutes:.1f} min, peak memory {peak_memory_gb():.1f} GB", highlight=False, soft_wrap=True
    )


def command_reproduce(args: ReproduceArgs) -> None:
    """Make the paper's main figures."""
    from envs_mjx import SUITES
    from experiments import reproduce

    figures = ("failures", "returns") if args.figure == "both" else (args.figure,)
    command = command_typed()
    if args.stored:
        own = ReproduceArgs(figure=args.figure, preset=args.preset, out=args.out, stored=True)
        if args != own:
            raise UserError(
                "--stored draws all stored rows; give only --figure, --preset and --out with it"
            )
        return reproduce.redraw(args.out, args.preset, figures, command, plain_console())
    for name in args.method:
        find_method(name)
    methods = tuple(METHODS) if args.all else tuple(dict.fromkeys((*MAIN, *args.method)))
    tasks = args.task or SUITES["failurebench"]
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
    """Make runs over a grid of settings. Return 1 if one of them failed."""
    from experiments.sweep import command as sweep_command

    return 1 if sweep_command.sweep(args, command_typed(), plain_console()) else 0


def command_horizon(args: HorizonArgs) -> None:
    """Study horizons of C_H on a trained run."""
    from experiments.studies import horizon

    gates = len(args.study.horizons) * len(args.study.gammas) * len(args.study.trigger_rates)
    estimate.check_rollout(gates * args.study.num_envs, args.study.chunk, "--num-envs")
    _on_run(args, lambda run: horizon.study(run, args))


def command_report(args: ReportArgs) -> None:
    """Write one page about all runs."""
    from experiments.report.write import report

    report(args, plain_console())


def command_demos(args: DemosArgs) -> None:
    """Demonstrations only; starts the run's folders."""
    from experiments.phases import offline
    from experiments.runs.begin import DEMOS, begin
    from experiments.runs.run import start_run

    _one_way(args)
    for path, settings in _seed_folders(args)[1]:
        check_run(settings)
        again = args.resume or args.overwrite
        run, folder = start_run(path, settings, plain_console(), resume=again)
        with folder:
            offline.demos(begin(run, DEMOS, overwrite=args.overwrite))


def _one_way(args: Any) -> None:
    if getattr(args, "resume", False) and getattr(args, "overwrite", False):
        raise UserError("--resume continues and --overwrite starts again; give only one of them")


def _on_run(args: PhaseArgs | HorizonArgs | ExportArgs, phase: Any) -> None:
    from experiments.runs.run import open_run

    _one_way(args)
    resume = getattr(args, "resume", True)
    run, folder = open_run(args.run, plain_console(), resume=resume, task=args.task)
    with folder:
        if isinstance(args, PhaseArgs):
            estimate.check_fits(run.settings.config, methods=1, insist=args.insist)
        phase(run)


def command_offline(args: OfflineArgs) -> None:
    """Do the offline phase of a run."""
    from experiments.phases import offline
    from experiments.runs.begin import OFFLINE, begin

    def fit(run: Any) -> None:
        if args.overwrite:
            offline.own_demos(run)  # nothing is moved unless it can be made again
        offline.fit(begin(run, OFFLINE, overwrite=args.overwrite))

    _on_run(args, fit)


def command_online(args: OnlineArgs) -> None:
    """Do the online phase of a run with one method."""
    from experiments.phases import online as run_online
    from experiments.runs.begin import begin, online

    find_method(args.method)

    def tune(run: Any) -> None:
        if args.overwrite:
            run.offline_result()  # nothing is moved unless it can be made again
        run = begin(run, online(args.method), overwrite=args.overwrite)
        run_online.fine_tune([run], args.method, num_devices=args.devices)

    _on_run(args, tune)


def command_evaluate(args: PhaseArgs) -> None:
    """Make table and figure of a run."""
    from experiments.studies import compare

    _on_run(args, lambda run: compare.compare(run.path, [run.path], run.console))


def command_render(args: PhaseArgs) -> None:
    """Make film and contact sheet of a method's newest policy."""
    from experiments.studies import film

    _on_run(args, lambda run: film.film(run, args.method))


def command_diagnose(args: PhaseArgs) -> None:
    """Diagnose the world model's predictions."""
    from experiments.studies import diagnose

    _on_run(args, lambda run: diagnose.diagnose(run, args.method))


def command_export(args: ExportArgs) -> None:
    """The safe policy of a run as a file."""
    from experiments.policy.export import export
    from experiments.policy.trained import TrainedRun

    find_method(args.method)
    _on_run(
        args,
        lambda run: export(TrainedRun(run), args.method, args.out, args.formats, args.rate),
    )


def command_bench(args: BenchArgs) -> None:
    """Throughput."""
    from experiments.bench import rollout

    estimate.check_rollout(max(args.num_envs), 4, "--num-envs")
    rollout.run(
        args.task,
        args.backends,
        args.num_envs,
        plain_console(),
        out=args.out,
        figure=args.figure,
        metaworld=args.metaworld,
    )


def command_bench_train(args: BenchTrainArgs) -> None:
    """Measure the throughput of the whole online loop."""
    from experiments.bench import train

    estimate.check_rollout(max(args.num_envs), 32, "--num-envs")
    train.run(args, plain_console())


def command_bench_deploy(args: BenchDeployArgs) -> None:
    """Latency of an exported policy."""
    from experiments.bench import deploy

    deploy.run(args, plain_console())


def command_tasks(args: TasksArgs) -> None:
    """Measure or draw the tasks' scripted controllers."""
    from experiments.bench import sheet
    from experiments.bench import tasks as bench_tasks

    if args.sheet is not None:
        sheet.draw(args.sheet, args.task, plain_console())
        return
    estimate.check_rollout(args.episodes, estimate.EPISODE, "--episodes")
    bench_tasks.run(args.task, args.episodes, args.out, plain_console())


COMMANDS = {
    "run": (StartArgs, command_run, "all phases: demos, offline, both online methods, table, film"),
    "reproduce": (ReproduceArgs, command_reproduce, "the paper's main figures beside ours"),
    "sweep": (SweepArgs, command_sweep, "runs over a grid of settings, and their table"),
    "sweep horizon": (
        HorizonArgs,
        command_horizon,
        "horizons of C_H compared on a trained run",
    ),
    "report": (ReportArgs, command_report, "one page with tables, figures and films of all runs"),
    "demos": (DemosArgs, command_demos, "demonstrations of a run"),
    "offline": (OfflineArgs, command_offline, "offline learning of a run"),
    "online": (OnlineArgs, command_online, "online fine-tuning of a run by one method"),
    "evaluate": (PhaseArgs, command_evaluate, "table and figure of a run"),
    "render": (PhaseArgs, command_render, "film of a run's gate at work"),
    "diagnose": (PhaseArgs, command_diagnose, "failure prediction of a run's world model"),
    "export": (ExportArgs, command_export, "a run's safe policy as a file, for a robot"),
    "bench": (BenchArgs, command_bench, "env steps per second"),
    "bench train": (
        BenchTrainArgs,
        command_bench_train,
        "speed of the online loop and its parts",
    ),
    "bench deploy": (BenchDeployArgs, command_bench_deploy, "a decision of an exported policy"),
    "tasks": (
        TasksArgs,
        command_tasks,
        "success, failure and recovery rates of scripted controllers",
    ),
}
