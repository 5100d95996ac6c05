"""Commands that make a run or one of its phases."""

import time
from typing import Any

from experiments.arguments import (
    DemosArgs,
    DemosExportArgs,
    ImportArgs,
    OfflineArgs,
    OnlineArgs,
    RunArgs,
)
from experiments.commands.opening import check_one_way, on_run, say_next, seed_folders
from experiments.figures.decoration import decoration
from experiments.process.console import plain_console
from experiments.runs.environment import check_sharing
from experiments.runs.presets import check_run
from farl_jax.methods import find_method
from farl_jax.storage.trackers import TRACKERS


def command_run(args: RunArgs) -> None:
    """Run all phases with both methods, then make table, plot and film."""
    from experiments.phases import online as run_online
    from experiments.phases.judge import Judge
    from experiments.process.machine import peak_memory_gb
    from experiments.runs.run import start_runs
    from experiments.studies import compare, film
    from farl_jax import devices

    started = time.perf_counter()
    TRACKERS[args.track].check()
    root, runs = seed_folders(args)
    for _, settings in runs:
        check_run(settings)
    together = len(runs) if args.together else 1
    check_sharing(runs[0][1].task, args.config.online, together, args.devices)
    devices.check(args.devices, together, args.config.online.num_envs)
    console = plain_console()
    again = {n: getattr(args, n) for n in ("resume", "verbose", "track", "transitions")}
    alone, *others = [runs] if args.together else [[one] for one in runs]
    with start_runs(alone, console, **again) as first:
        judge = Judge(first[0], args.config)
        run_online.all_phases(first, judge, num_devices=args.devices)
        for group in others:
            with start_runs(group, console, **again) as seeds:
                run_online.all_phases(seeds, judge, num_devices=args.devices)
        compare.compare(root, [path for path, _ in runs], console)
        with decoration("film", f"farl render {first[0].path} makes it later"):
            film.film(first[0], "farl")
    minutes = (time.perf_counter() - started) / 60
    console.print(
        f"{minutes:.1f} min, peak memory {peak_memory_gb():.1f} GB", highlight=False, soft_wrap=True
    )
    path, settings = runs[0]
    say_next(
        console, "diagnose", path, settings.task, f"; farl report {root} makes a page of all runs"
    )


def command_demos(args: DemosArgs) -> None:
    """Demonstrations only; starts the run's folders."""
    from experiments.phases import offline
    from experiments.runs.begin import DEMOS, begin
    from experiments.runs.run import start_run

    check_one_way(args)
    for path, settings in seed_folders(args)[1]:
        check_run(settings)
        again = args.resume or args.overwrite
        run, folder = start_run(path, settings, plain_console(), resume=again)
        with folder:
            offline.demos(begin(run, DEMOS, overwrite=args.overwrite))
        say_next(run.console, "offline", path, settings.task)


def command_import(args: ImportArgs) -> None:
    """Demonstrations from elsewhere; starts the run's folders."""
    from experiments.exchange import demos
    from experiments.runs.run import start_run

    check_one_way(args)
    sources = {"task": args.task, "failure": args.failure, "recovery": args.recovery}
    for path, settings in seed_folders(args)[1]:
        check_run(settings)
        again = args.resume or args.overwrite
        run, folder = start_run(path, settings, plain_console(), resume=again)
        with folder:
            demos.bring(run, sources, overwrite=args.overwrite)
        say_next(run.console, "offline", path, settings.task)


def command_demos_export(args: DemosExportArgs) -> None:
    """A run's demonstrations for Minari."""
    from experiments.exchange import demos

    demos.give(args.run, args.out, plain_console())


def command_offline(args: OfflineArgs) -> None:
    """Do the offline phase of a run."""
    from experiments.phases import offline
    from experiments.runs.begin import OFFLINE, begin

    def fit(run: Any) -> None:
        if args.overwrite:
            offline.own_demos(run)  # nothing is moved unless it can be made again
        offline.fit(begin(run, OFFLINE, overwrite=args.overwrite))
        say_next(run.console, "online", run.path, run.settings.task, " --method farl")

    on_run(args, fit)


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
        say_next(run.console, "evaluate", args.run, run.settings.task)

    on_run(args, tune)
