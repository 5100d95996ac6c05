"""Arguments of the commands; what each may be stands beside it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from farl_jax.config import FarlConfig, HorizonConfig
from farl_jax.methods import MAIN
from farl_jax.schema import Checked, Count, Length, Positive, Range, Seed


@dataclass(frozen=True)
class StartArgs(Checked):
    """Start a run, or go on with it."""

    task: str = "bounded_push"
    """A FailureBench task, or module:Class of your own (docs/own_task.md)."""
    env: str | None = None
    """In the task's place, an environment of your own: gymnasium:ID, or module:function that
    returns a gymnasium.Env or VectorEnv (docs/own_environment.md)."""
    preset: str = "quick"
    """Budget: smoke, quick or paper. Any number of it can be changed by the options below."""
    seed: Seed = 0
    """First seed."""
    seeds: Count = 1
    """How many seeds, each in a folder of its own; one after the other, but for --together."""
    together: bool = False
    """Train all seeds of a method online at once, as one compiled program."""
    devices: Count = 1
    """Spread the online phase over this many devices: seeds of --together, then environments."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    out: Path | None = None
    """Folder of the run. Default: runs/<task>/<preset>."""
    resume: bool = False
    """Keep what is finished and go on from the newest checkpoint."""
    insist: bool = False
    """Start even where an estimate says that memory or time cannot be enough."""
    config: Annotated[FarlConfig, tyro.conf.arg(name="")] = field(default_factory=FarlConfig)


@dataclass(frozen=True)
class DemosArgs(StartArgs):
    """Collect the demonstrations of a run, new or not."""

    overwrite: bool = False
    """Start afresh: what is there, and what was made from it, is put aside into replaced/."""


@dataclass(frozen=True)
class ImportArgs(StartArgs):
    """Make a run from demonstrations that you have: Minari datasets, npz or HDF5 files."""

    env: str = "bounded_push"
    """What the data are of: gymnasium:ID, module:function, or a FailureBench task."""
    task: str | None = None
    """Demonstrations of the task: a Minari ID or folder, or an npz or HDF5 file."""
    failure: str | None = None
    """The same of failures."""
    recovery: str | None = None
    """The same of recoveries, one an episode."""
    overwrite: bool = False
    """Start afresh: what is there, and what was made from it, is put aside into replaced/."""


@dataclass(frozen=True)
class ExportArgs(Checked):
    """Write the demonstrations of a run as Minari datasets, with a cost of each step."""

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A local store of Minari's (MINARI_DATASETS_PATH). Default: minari/ in the run's folder."""


@dataclass(frozen=True)
class ReproduceArgs(Checked):
    """Run what the paper's main figures need, and draw them beside the paper's."""

    figure: Literal["failures", "returns", "both"] = "both"
    """Which figure to draw."""
    task: tuple[str, ...] = ()
    """Tasks; none means all of FailureBench."""
    seed: Seed = 0
    """First seed."""
    seeds: Count = 3
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
    insist: bool = False
    """Start even where an estimate says that memory or time cannot be enough."""


@dataclass(frozen=True)
class PhaseArgs(Checked):
    """Do one phase of a run that exists; its config.json says the rest."""

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    method: str = "farl"
    """uni_o4 (gate off), farl, or another of farl_jax/methods.py; for `online`, `render` and
    `diagnose`."""
    resume: bool = False
    """Keep what is finished and go on from the newest checkpoint."""
    task: str | None = None
    """Again, where the run is on a task of your own, module:Class: no file alone runs code."""
    env: str | None = None
    """The same for an environment of your own, gymnasium:ID or module:function."""
    insist: bool = False
    """Start even where an estimate says that memory or time cannot be enough."""


@dataclass(frozen=True)
class OfflineArgs(PhaseArgs):
    """Learn offline from a run's demonstrations."""

    overwrite: bool = False
    """Start afresh: what is there, and what was made from it, is put aside into replaced/."""


@dataclass(frozen=True)
class OnlineArgs(PhaseArgs):
    """Fine-tune a run online by one method."""

    overwrite: bool = False
    """Start afresh: what is there, and what was made from it, is put aside into replaced/."""
    devices: Count = 1
    """Spread environments over this many devices, those of all processes together."""


@dataclass(frozen=True)
class SweepArgs(Checked):
    """Ordinary runs over a grid of settings and seeds, and one table of them.

    The same command again skips what is finished and goes on with what was cut off.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the sweep: <settings>/seed<N> for each run, base/ for what they share,
    sweep.jsonl, and failed.jsonl if a run failed."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A field and its values, for example --set safety.horizon=3,6,12; may be repeated."""
    list: bool = False
    """Pair the values of all fields one by one, instead of combining each with each; a field with a
    single value has it throughout."""
    task: str = "bounded_push"
    """A FailureBench task, or module:Class of your own (docs/own_task.md)."""
    preset: str = "quick"
    """Settings that are not swept: smoke, quick or paper."""
    method: Annotated[tuple[str, ...], Length(1)] = MAIN
    """Methods of each run."""
    seed: Seed = 0
    """First seed."""
    seeds: Count = 1
    """How many seeds."""
    together: bool = False
    """Train all seeds and thresholds (safety.max_risk, safety.gamma_risk, risk_critic.max_risk) of
    a setting online at once, as one compiled program."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    insist: bool = False
    """Start even where an estimate says that memory or time cannot be enough."""
    executor: Literal["local", "slurm"] = "local"
    """Where the runs are made: on this machine, or as jobs of Slurm, one for each run, or for all
    that trains --together."""
    workers: Count = 1
    """With local: processes that work at once, each on its share of the cores."""
    submit_only: bool = False
    """With slurm: do not wait for the jobs; the same command later gathers what they made."""
    slurm_partition: str | None = None
    """With slurm: the partition, if not the cluster's default."""
    slurm_time: Annotated[int, Range(5)] = 240
    """With slurm: minutes a job may take; one that needs more is queued again and goes on."""
    slurm_gpus: Annotated[int, Range(0, 1)] = 0
    """With slurm: GPUs of a job: 1, or 0 to run on CPUs."""
    slurm_cpus: Count = 2
    """With slurm: CPU cores of a job."""
    slurm_extra: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With slurm: another option of sbatch, as --slurm-extra account=mine; may be repeated."""


@dataclass(frozen=True)
class HorizonArgs(Checked):
    """Compare horizons of C_H on a trained run: all gates at once, policy and model frozen."""

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    method: str = "farl"
    """A method whose gate is the world model's."""
    policy: Literal["newest", "offline"] = "newest"
    """Policy and world model: of the newest checkpoint, or of the offline phase, which fails
    more often and so says more in as many steps."""
    task: str | None = None
    """Again, where the run is on a task of your own, module:Class: no file alone runs code."""
    env: str | None = None
    """The same for an environment of your own, gymnasium:ID or module:function."""
    overwrite: bool = False
    """Start afresh: what is there, and what was made from it, is put aside into replaced/."""
    study: Annotated[HorizonConfig, tyro.conf.arg(name="")] = field(default_factory=HorizonConfig)


@dataclass(frozen=True)
class ReportArgs(Checked):
    """One self-contained page and its figures, from finished runs."""

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], Length(1)]]
    """Folders that are walked for result.json, sweep.jsonl and horizon.json."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report")
    """Folder of index.html, the figures as PNG and PDF, and rows.jsonl."""
    by: tuple[str, ...] = ()
    """Settings, for example online.treatment, whose values make groups of their own. Without it,
    runs that differ in a setting from most of their group are left out."""


@dataclass(frozen=True)
class BenchArgs(Checked):
    """Measure env steps per second of a jitted rollout with a policy."""

    task: str = "bounded_push"
    """A FailureBench task, or all."""
    backends: Annotated[tuple[str, ...], Length(1)] = ("native", "mjx")
    """Backends to measure."""
    num_envs: Annotated[tuple[Count, ...], Length(1)] = (64, 256)
    """Batch sizes."""
    out: Path | None = None
    """JSON file for the rows."""
    figure: Path | None = None
    """Picture of env steps per second against batch size."""
    metaworld: Path | None = None
    """A Python with metaworld 3.1.1, to measure MetaWorld itself in the same run."""


@dataclass(frozen=True)
class BenchTrainArgs(Checked):
    """Measure the whole online loop of `farl`, and what its parts take."""

    task: str = "bounded_push"
    """A FailureBench task, or all."""
    backends: Annotated[tuple[str, ...], Length(1)] = ("native",)
    """Backends to measure."""
    num_envs: Annotated[tuple[Count, ...], Length(1)] = (128,)
    """Batch sizes."""
    seconds: Positive = 30.0
    """Of updates for one row; two at least."""
    seeds: Count = 1
    """Also time this many seeds in one program, over a single one."""
    cold: bool = True
    """Also compile with an empty cache, in a process of its own for each row."""
    out: Path | None = None
    """JSON file for the rows, for example results/bench/train.json."""
    figure: Path | None = None
    """Picture of the parts' shares."""


@dataclass(frozen=True)
class TasksArgs(Checked):
    """Measure each task's scripted controllers and its normalisation references."""

    task: str = "all"
    """A FailureBench task, or all."""
    episodes: Count = 1000
    """Episodes for each controller."""
    out: Path | None = None
    """JSON file for the rows."""
    sheet: Path | None = None
    """PNG of start, success, failure and recovery; drawn instead of measuring."""
