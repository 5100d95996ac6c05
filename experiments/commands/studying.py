"""Commands that study or export a trained run."""

from experiments.arguments import (
    CardArgs,
    ExportArgs,
    HorizonArgs,
    PhaseArgs,
    RenderArgs,
)
from experiments.commands.opening import on_run
from experiments.process.console import plain_console
from experiments.runs import estimate
from farl_jax.methods import find_method


def command_horizon(args: HorizonArgs) -> None:
    """Study horizons of the risk on a trained run."""
    from experiments.studies import horizon

    gates = len(args.study.horizons) * len(args.study.gammas) * len(args.study.trigger_rates)
    estimate.check_rollout(gates * args.study.num_envs, args.study.chunk, "--num-envs")
    on_run(args, lambda run: horizon.study(run, args))


def command_evaluate(args: PhaseArgs) -> None:
    """Make table and figure of a run."""
    from experiments.studies import compare

    on_run(args, lambda run: compare.compare(run.path, [run.path], run.console))


def command_render(args: RenderArgs) -> None:
    """Make film and contact sheet of a method's newest policy."""
    from experiments.studies import film

    make = film.film_beside if args.beside else film.film
    on_run(args, lambda run: make(run, args.method))


def command_diagnose(args: PhaseArgs) -> None:
    """Diagnose the world model's predictions."""
    from experiments.studies import diagnose

    on_run(args, lambda run: diagnose.diagnose(run, args.method))


def command_export(args: ExportArgs) -> None:
    """The safe policy of a run as a file."""
    from experiments.policy.export import export
    from experiments.policy.trained import TrainedRun

    find_method(args.method)
    on_run(
        args,
        lambda run: export(TrainedRun(run), args.method, args.out, args.formats, args.rate),
    )


def command_card(args: CardArgs) -> None:
    """Write the model card of a method's policy."""
    from experiments.policy.card import write_card

    plain_console().print(f"card: {write_card(args.run, args.method)}", soft_wrap=True)
