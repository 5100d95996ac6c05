"""Commands over many runs: figures of the paper, sweeps, reports."""

from experiments.arguments import (
    ReportArgs,
    ReproduceArgs,
    SweepArgs,
)
from experiments.errors import UserError
from experiments.process.console import command_typed, plain_console
from experiments.runs import estimate
from experiments.runs.environment import check_sharing
from experiments.runs.presets import RunSettings, check_run, preset
from farl_jax.methods import METHODS, find_method
from farl_jax.storage.trackers import TRACKERS


def command_reproduce(args: ReproduceArgs) -> None:
    """Make the paper's main figures."""
    from envs_mjx import SUITES
    from experiments import reproduce

    figures = ("failures", "returns") if args.figure == "both" else (args.figure,)
    usual, command = reproduce.usual(args.figure), command_typed()
    name = args.preset or usual.preset
    out = args.out or usual.folder(name)
    if args.stored:
        own = ReproduceArgs(figure=args.figure, preset=args.preset, out=args.out, stored=True)
        if args != own:
            raise UserError(
                "--stored draws all stored rows; give only --figure, --preset and --out with it"
            )
        if out == usual.out:
            reproduce.bring_stored(out, plain_console(), usual)
        return reproduce.redraw(out, name, figures, command, plain_console())
    for method in args.method:
        find_method(method)
    methods = tuple(METHODS) if args.all else tuple(dict.fromkeys((*usual.methods, *args.method)))
    tasks, number = args.task or SUITES[usual.suite], args.seeds or usual.seeds
    for task in tasks:
        config = preset(name)
        estimate.check_fits(config, len(tasks) * number, len(methods), insist=args.insist)
        check_run(RunSettings(task, name, args.seed, args.backend, config))
        check_sharing(task, config.online, number if args.together else 1, 1)
    seeds = tuple(range(args.seed, args.seed + number))
    plan = reproduce.Plan(tasks, methods, seeds, name, args.backend, args.runs, args.together)
    reproduce.reproduce(plan, figures, out, command, plain_console())


def command_sweep(args: SweepArgs) -> int:
    """Make runs over a grid of settings. Return 1 if one of them failed."""
    from experiments.sweep import command as sweep_command

    TRACKERS[args.track].check()
    return 1 if sweep_command.sweep(args, command_typed(), plain_console()) else 0


def command_report(args: ReportArgs) -> None:
    """Write one page about all runs."""
    from experiments.report.write import report

    report(args, plain_console())
