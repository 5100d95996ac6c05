"""Commands that measure the machine, speed and scripted controllers."""

from experiments.arguments_bench import (
    BenchArgs,
    BenchCompareArgs,
    BenchDeployArgs,
    BenchGpuArgs,
    BenchRooflineArgs,
    BenchTrainArgs,
    DoctorArgs,
    TasksArgs,
)
from experiments.process.console import plain_console
from experiments.runs import estimate


def command_bench(args: BenchArgs) -> None:
    """Throughput."""
    from experiments.bench import rollout

    estimate.check_rollout(max(args.num_envs), 4, "--num-envs")
    rollout.run(
        args.task,
        args.backends,
        args.num_envs,
        plain_console(),
        seconds=args.seconds,
        out=args.out,
        figure=args.figure,
        metaworld=args.metaworld,
    )


def command_bench_train(args: BenchTrainArgs) -> None:
    """Measure the throughput of the whole online loop."""
    from experiments.bench import train

    estimate.check_rollout(max(args.num_envs), 32, "--num-envs")
    train.run(args, plain_console())


def command_bench_compare(args: BenchCompareArgs) -> None:
    """Throughput of the online loop, beside another commit's."""
    from experiments.bench import compare

    estimate.check_rollout(args.num_envs, 32, "--num-envs")
    compare.run(args, plain_console())


def command_bench_deploy(args: BenchDeployArgs) -> None:
    """Latency of an exported policy."""
    from experiments.bench import deploy

    deploy.run(args, plain_console())


def command_bench_gpu(args: BenchGpuArgs) -> None:
    """All that only an accelerator can tell."""
    from experiments.bench import gpu

    gpu.run(args, plain_console())


def command_bench_roofline(args: BenchRooflineArgs) -> None:
    """Bounds of a GPU's speed."""
    from experiments.bench import roofline

    roofline.run(args, plain_console())


def command_tasks(args: TasksArgs) -> None:
    """Measure or draw the tasks' scripted controllers."""
    from experiments.bench import sheet
    from experiments.bench import tasks as bench_tasks

    if args.sheet is not None:
        sheet.draw(args.sheet, args.task, plain_console())
        return
    estimate.check_rollout(args.episodes, estimate.EPISODE, "--episodes")
    bench_tasks.run(args.task, args.episodes, args.out, plain_console())


def command_doctor(args: DoctorArgs) -> int:
    """Examine this machine. Return 1 if training does not work here."""
    from experiments.doctor import doctor

    return doctor(plain_console(), step=args.step)
