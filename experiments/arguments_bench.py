"""Arguments of the commands that measure, with their types, ranges and help texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from farl_jax.schema import Checked, Count, Length, Positive, Range


@dataclass(frozen=True)
class BenchArgs(Checked):
    """Measure env steps per second of a jitted rollout of a policy."""

    task: str = "bounded_push"
    """A task, a suite (failurebench, franka), or all."""
    backends: Annotated[tuple[str, ...], Length(1)] = ("native", "mjx")
    """Backends to measure."""
    num_envs: Annotated[tuple[Count, ...], Length(1)] = (64, 256)
    """Batch sizes."""
    seconds: Positive = 30.0
    """Most seconds of rollouts in each row. At least two rollouts are measured."""
    out: Path | None = None
    """JSON file for the rows. It is written again after each row."""
    figure: Path | None = None
    """Figure file: env steps per second against batch size."""
    metaworld: Path | None = None
    """Python executable with metaworld 3.1.1, to measure MetaWorld itself as well."""


@dataclass(frozen=True)
class BenchTrainArgs(Checked):
    """Measure the whole online loop of method farl, and its parts."""

    task: str = "bounded_push"
    """A task, a suite (failurebench, franka), or all."""
    backends: Annotated[tuple[str, ...], Length(1)] = ("native",)
    """Backends to measure."""
    num_envs: Annotated[tuple[Count, ...], Length(1)] = (128,)
    """Batch sizes."""
    seconds: Positive = 30.0
    """Seconds of updates for each row. At least two updates are measured."""
    seeds: Count = 1
    """Also measure this many seeds in one program, relative to one seed."""
    cold: bool = True
    """Also measure compilation with an empty cache, in a new process for each row."""
    out: Path | None = None
    """JSON file for the rows, for example results/bench/train.json."""
    figure: Path | None = None
    """Figure file: shares of the parts."""


@dataclass(frozen=True)
class BenchCompareArgs(Checked):
    """Measure the online loop of this checkout and of another commit in turn."""

    rev: tyro.conf.Positional[str]
    """A commit of this repository: a hash, a branch or a tag."""
    task: str = "bounded_push"
    """A FailureBench task."""
    num_envs: Count = 128
    """Batch size."""
    rounds: Count = 3
    """How often each of the two is measured."""
    seconds: Positive = 10.0
    """Of updates in one measurement; two at least."""
    out: Path | None = None
    """JSON file for the ratio, its spread and the medians."""


@dataclass(frozen=True)
class BenchDeployArgs(Checked):
    """Measure how long a decision of an exported policy takes, at batch 1 on one CPU core."""

    policy: tyro.conf.Positional[Path]
    """Folder that `farl export` wrote."""
    steps: Annotated[int, Range(100)] = 5000
    """Decisions that are timed, after a tenth as many that are not."""
    out: Path | None = None
    """JSON file for the rows, for example results/bench/deploy.json."""


@dataclass(frozen=True)
class BenchGpuArgs(Checked):
    """Measure all that only an accelerator can tell, in stages; it goes on where it stopped."""

    dry: bool = False
    """All stages at tiny sizes, on any machine: it finds errors, not speed."""
    minutes: Annotated[float, Range(1.0, 25.0)] = 25.0
    """No stage starts or goes on after this time. The same command then does the rest."""
    out: Path | None = None
    """Folder of gpu.json, gpu.md and the figures. Default: results/bench/gpu, or with --dry
    runs/gpu-dry."""


@dataclass(frozen=True)
class BenchRooflineArgs(Checked):
    """Bound a GPU's speed by XLA's count of kernels, operations and bytes; no GPU is needed."""

    task: str = "bounded_push"
    """A task."""
    compiled_envs: Annotated[int, Range(2, 128)] = 64
    """Environments of the programs that are compiled and counted."""
    num_envs: Annotated[tuple[Count, ...], Length(1)] = (128, 1024, 4096, 16384)
    """Batch sizes of the table."""
    out: Path | None = None
    """JSON file, for example results/bench/roofline.json."""


@dataclass(frozen=True)
class TasksArgs(Checked):
    """Measure each task's scripted controllers, and the references of its normalized return."""

    task: str = "all"
    """A task, a suite (failurebench, franka), or all."""
    episodes: Count = 1000
    """Episodes for each controller."""
    out: Path | None = None
    """JSON file for the rows."""
    sheet: Path | None = None
    """PNG file: draw start, success, failure and recovery instead of measuring."""


@dataclass(frozen=True)
class DoctorArgs(Checked):
    """Say what works on this machine, and what to install for what."""

    step: bool = False
    """Also compile and make one step of every backend. On a CPU mjx takes a minute."""
