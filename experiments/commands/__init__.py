"""The commands of `farl`: their names, arguments and functions."""

from experiments.arguments import (
    CardArgs,
    DemosArgs,
    DemosExportArgs,
    ExportArgs,
    HorizonArgs,
    ImportArgs,
    OfflineArgs,
    OnlineArgs,
    PhaseArgs,
    RenderArgs,
    ReportArgs,
    ReproduceArgs,
    RunArgs,
    SweepArgs,
)
from experiments.arguments_bench import (
    BenchArgs,
    BenchBraxArgs,
    BenchCompareArgs,
    BenchDeployArgs,
    BenchGpuArgs,
    BenchRooflineArgs,
    BenchTrainArgs,
    DoctorArgs,
    TasksArgs,
)
from experiments.commands.many import command_report, command_reproduce, command_sweep
from experiments.commands.measuring import (
    command_bench,
    command_bench_brax,
    command_bench_compare,
    command_bench_deploy,
    command_bench_gpu,
    command_bench_roofline,
    command_bench_train,
    command_doctor,
    command_tasks,
)
from experiments.commands.studying import (
    command_card,
    command_diagnose,
    command_evaluate,
    command_export,
    command_horizon,
    command_render,
)
from experiments.commands.training import (
    command_demos,
    command_demos_export,
    command_import,
    command_offline,
    command_online,
    command_run,
)

COMMANDS = {
    "run": (RunArgs, command_run, "all phases: demos, offline, both online methods, table, film"),
    "reproduce": (ReproduceArgs, command_reproduce, "the paper's main figures beside ours"),
    "sweep": (SweepArgs, command_sweep, "runs over a grid of settings, and their table"),
    "sweep horizon": (
        HorizonArgs,
        command_horizon,
        "horizons of the risk compared on a trained run",
    ),
    "report": (ReportArgs, command_report, "one page with tables, figures and films of all runs"),
    "demos": (DemosArgs, command_demos, "demonstrations of a run"),
    "demos import": (ImportArgs, command_import, "a run from demonstrations that you have"),
    "demos export": (
        DemosExportArgs,
        command_demos_export,
        "a run's demonstrations and kept online steps as Minari datasets",
    ),
    "offline": (OfflineArgs, command_offline, "offline learning of a run"),
    "online": (OnlineArgs, command_online, "online fine-tuning of a run by one method"),
    "evaluate": (PhaseArgs, command_evaluate, "table and figure of a run"),
    "render": (RenderArgs, command_render, "film of a run's gate at work"),
    "diagnose": (PhaseArgs, command_diagnose, "failure prediction of a run's world model"),
    "export": (ExportArgs, command_export, "a run's safe policy as a file, for a robot"),
    "card": (CardArgs, command_card, "a model card of a trained policy"),
    "doctor": (DoctorArgs, command_doctor, "what works here, and what to install for what"),
    "bench": (BenchArgs, command_bench, "env steps per second"),
    "bench train": (
        BenchTrainArgs,
        command_bench_train,
        "speed of the online loop and its parts",
    ),
    "bench compare": (
        BenchCompareArgs,
        command_bench_compare,
        "the online loop beside another commit's",
    ),
    "bench brax": (BenchBraxArgs, command_bench_brax, "a PPO update beside Brax's"),
    "bench deploy": (BenchDeployArgs, command_bench_deploy, "a decision of an exported policy"),
    "bench gpu": (BenchGpuArgs, command_bench_gpu, "all that only an accelerator can tell"),
    "bench roofline": (
        BenchRooflineArgs,
        command_bench_roofline,
        "bounds of a GPU's speed, counted without one",
    ),
    "tasks": (
        TasksArgs,
        command_tasks,
        "success, failure and recovery rates of scripted controllers",
    ),
}

PARENTS = ("bench train", "bench compare", "bench brax", "bench gpu")
"""Commands that measure in other processes, too, and leave the accelerator's memory to them."""
