"""Commands over many runs: figures of the paper, sweeps, reports."""

from experiments.arguments import (
    ReportArgs,
    ReproduceArgs,
    SweepArgs,
)
from experiments.errors import UserError
from experiments.process.console import command_typed, plain_console
from experiments.runs import estimate
from experiments.runs.presets import RunSettings, check_run, preset
from farl_jax.methods import MAIN, METHODS, find_method


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
        if args.out == ReproduceArgs.out:
            reproduce.bring_stored(args.out, plain_console())
        return reproduce.redraw(args.out, args.preset, figures, command, plain_console())
    for name in args.method:
        find_method(name)
    methods = tuple(METHODS) if args.all else tuple(dict.fromkeys((*MAIN, *args.method)))
    tasks = args.task or SUITES["failurebench"]
    for task in tasks:
        config = preset(args.preset)
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


def command_report(args: ReportArgs) -> None:
    """Write one page about all runs."""
    from experiments.report.write import report

    report(args, plain_console())
