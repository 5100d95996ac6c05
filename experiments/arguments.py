"""Arguments of the commands, with their types, ranges and help texts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from farl_jax.config import FarlConfig, HorizonConfig
from farl_jax.methods import MAIN
from farl_jax.schema import Checked, Count, Length, Natural, Positive, Range, Seed
from farl_jax.storage.trackers import TRACKERS

Viewer = Literal[tuple(TRACKERS)]


@dataclass(frozen=True)
class StartArgs(Checked):
    """How a run begins."""

    task: str = "bounded_push"
    """A FailureBench task, or your own as module:Class (docs/tutorials/own-task.md)."""
    env: str | None = None
    """Your own environment instead of a task: gymnasium:ID, or module:function that returns a
    gymnasium.Env or VectorEnv (docs/tutorials/own-environment.md)."""
    preset: str = "quick"
    """Budget: smoke, quick, robot, paper or published. The options below change single settings."""
    seed: Seed = 0
    """First seed."""
    seeds: Count = 1
    """Number of seeds, each in its own folder. They run one by one, or --together."""
    together: bool = False
    """Train all seeds of a method online together, as one compiled program."""
    devices: Count = 1
    """Split the online phase over this many devices: seeds of --together, then environments."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    out: Path | None = None
    """Folder of the run. Default: runs/<task>/<preset>."""
    resume: bool = False
    """Keep finished work and continue from the newest checkpoint."""
    insist: bool = False
    """Start even if the estimate of memory or time is too high."""
    verbose: bool = False
    """Print every number of each stage. metrics.jsonl has them in any case."""
    config: Annotated[FarlConfig, tyro.conf.arg(name="")] = field(default_factory=FarlConfig)


@dataclass(frozen=True)
class RunArgs(StartArgs):
    """Start a run, or continue it."""

    track: Viewer = "tensorboard"
    """Viewer that gets a copy of the metrics: tensorboard, wandb, trackio or none
    (docs/how-to/track.md)."""
    transitions: Natural = 0
    """Keep the newest N online env steps of a method in its folder, for farl demos export. A step
    takes about 0.4 kB on FailureBench."""


@dataclass(frozen=True)
class DemosArgs(StartArgs):
    """Collect the demonstrations of a run."""

    overwrite: bool = False
    """Start again. Old results, and all made from them, are moved into replaced/."""


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
class DemosExportArgs(Checked):
    """Write the demonstrations of a run as Minari datasets, with a cost of each step.

    Online steps that `--transitions` kept are written, too, one dataset for each method.
    """

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A local store of Minari's (MINARI_DATASETS_PATH). Default: minari/ in the run's folder."""


@dataclass(frozen=True)
class ReproduceArgs(Checked):
    """Make the runs for the paper's main figures, and draw ours beside the paper's."""

    figure: Literal["failures", "returns", "both", "robot"] = "both"
    """Figure to draw: failures and returns of simulated training, or robot, which is fifty
    episodes on one robot."""
    task: tuple[str, ...] = ()
    """Tasks. Default: all of FailureBench; robot: the Franka's three."""
    seed: Seed = 0
    """First seed."""
    seeds: Count | None = None
    """Number of seeds. Default: 3; robot: 10."""
    method: tuple[str, ...] = ()
    """Further methods, besides uni_o4 and farl; robot also has simple_critic."""
    all: bool = False
    """All methods: also the safe-RL baselines and the ablations."""
    together: bool = False
    """Train all seeds of a method online together, as one compiled program."""
    preset: str | None = None
    """Budget of each run. Default: paper; robot: robot."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    runs: Path = Path("runs")
    """Folder of the runs, <task>/<preset>/seed<N>. Missing ones are made there."""
    out: Path | None = None
    """Folder of main.jsonl and the figures. Default: results; robot: results/robot; another preset:
    a folder of its name in there."""
    stored: bool = False
    """Run nothing. Print tables and draw figures of the rows in --out."""
    insist: bool = False
    """Start even if the estimate of memory or time is too high."""


@dataclass(frozen=True)
class PhaseArgs(Checked):
    """Do one phase of an existing run, with the settings in its config.json."""

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    method: str = "farl"
    """Method of `online`, `render` and `diagnose`: farl, uni_o4 (gate off), or another of
    farl_jax/methods.py."""
    resume: bool = False
    """Keep finished work and continue from the newest checkpoint."""
    task: str | None = None
    """For a run on your own task: its module:Class. A file alone must not run code."""
    env: str | None = None
    """The same for an environment of your own: gymnasium:ID or module:function."""
    insist: bool = False
    """Start even if the estimate of memory or time is too high."""
    verbose: bool = False
    """Print every number of each stage. metrics.jsonl has them in any case."""


@dataclass(frozen=True)
class RenderArgs(PhaseArgs):
    """Make a film of a run's gate at work."""

    beside: bool = False
    """A GIF instead: left Uni-O4, right the method, from the same start."""


@dataclass(frozen=True)
class ExportArgs(Checked):
    """Write a run's safe policy as a file that acts without the training code.

    The page is docs/how-to/export.md.
    """

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the policy: contract.json and its programs; it must not hold anything yet."""
    method: str = "farl"
    """Whose newest policy, behind its own gate."""
    formats: tuple[Literal["jax", "onnx"], ...] = ()
    """Programs to write: jax (StableHLO for CPU and CUDA), onnx (needs the extra `onnx`). Without
    it, all that can be written here."""
    rate: Positive | None = None
    """Decisions a second that the contract asks for. Default: the environment's own."""
    task: str | None = None
    """Again, where the run is on a task of your own, module:Class: no file alone runs code."""
    env: str | None = None
    """The same for an environment of your own: gymnasium:ID or module:function."""


@dataclass(frozen=True)
class CardArgs(Checked):
    """Write a model card of a trained policy, as markdown."""

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    method: str = "farl"
    """Whose policy. The card is `<run>/<method>/card.md`."""


@dataclass(frozen=True)
class OfflineArgs(PhaseArgs):
    """Learn offline from a run's demonstrations."""

    track: Viewer = "tensorboard"
    """Viewer that gets a copy of the metrics: tensorboard, wandb, trackio or none
    (docs/how-to/track.md)."""
    overwrite: bool = False
    """Start again. Old results, and all made from them, are moved into replaced/."""


@dataclass(frozen=True)
class OnlineArgs(PhaseArgs):
    """Fine-tune a run online by one method."""

    track: Viewer = "tensorboard"
    """Viewer that gets a copy of the metrics: tensorboard, wandb, trackio or none
    (docs/how-to/track.md)."""
    transitions: Natural = 0
    """Keep the newest N online env steps of a method in its folder, for farl demos export. A step
    takes about 0.4 kB on FailureBench."""
    overwrite: bool = False
    """Start again. Old results, and all made from them, are moved into replaced/."""
    devices: Count = 1
    """Split environments over this many devices, counted over all processes."""


@dataclass(frozen=True)
class SweepArgs(Checked):
    """Make runs over a grid of settings and seeds, and one table of them.

    The same command again skips finished runs and continues interrupted ones.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder of the sweep: <settings>/seed<N> for each run, base/ for shared phases,
    sweep.jsonl, and failed.jsonl if a run failed."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A setting and its values, for example --set safety.horizon=3,6,12. May be repeated."""
    list: bool = False
    """Pair the values of all settings one by one, instead of all combinations. A single value goes
    with all."""
    task: str = "bounded_push"
    """A FailureBench task, or your own as module:Class (docs/tutorials/own-task.md)."""
    preset: str = "quick"
    """Preset of all other settings: smoke, quick, robot, paper or published."""
    method: Annotated[tuple[str, ...], Length(1)] = MAIN
    """Methods of each run."""
    seed: Seed = 0
    """First seed."""
    seeds: Count = 1
    """Number of seeds."""
    together: bool = False
    """Train all seeds and thresholds (safety.max_risk, risk_critic.max_risk) of
    a setting online together, as one compiled program."""
    backend: str | None = None
    """Physics: native, mjx or warp. Default: native without an accelerator, else mjx."""
    track: Viewer = "tensorboard"
    """Viewer that gets a copy of the metrics: tensorboard, wandb, trackio or none
    (docs/how-to/track.md)."""
    insist: bool = False
    """Start even if the estimate of memory or time is too high."""
    executor: Literal["local", "slurm"] = "local"
    """local: run on this machine. slurm: submit one job for each run, or for each group that trains
    --together."""
    workers: Count = 1
    """With local: parallel processes. Each has its share of the cores."""
    submit_only: bool = False
    """With slurm: do not wait for the jobs. The same command later collects their results."""
    slurm_partition: str | None = None
    """With slurm: partition. Default: the cluster's."""
    slurm_time: Annotated[int, Range(5)] = 240
    """With slurm: time limit of a job in minutes. A longer job is queued again and continues."""
    slurm_gpus: Annotated[int, Range(0, 1)] = 0
    """With slurm: GPUs of a job, 1 or 0."""
    slurm_cpus: Count = 2
    """With slurm: CPU cores of a job."""
    slurm_extra: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """With slurm: another option of sbatch, as --slurm-extra account=mine. May be repeated."""


@dataclass(frozen=True)
class HorizonArgs(Checked):
    """Compare horizons of the risk on a trained run, with frozen policy and world model."""

    run: tyro.conf.Positional[Path]
    """Folder of one seed of a run, for example runs/bounded_push/quick/seed0."""
    method: str = "farl"
    """A method with the world model's gate."""
    policy: Literal["newest", "offline"] = "newest"
    """Policy and world model of the newest checkpoint or of the offline phase. The offline policy
    fails more often, so it gives more data."""
    task: str | None = None
    """For a run on your own task: its module:Class. A file alone must not run code."""
    env: str | None = None
    """The same for an environment of your own: gymnasium:ID or module:function."""
    overwrite: bool = False
    """Start again. Old results, and all made from them, are moved into replaced/."""
    study: Annotated[HorizonConfig, tyro.conf.arg(name="")] = field(default_factory=HorizonConfig)


@dataclass(frozen=True)
class ReportArgs(Checked):
    """Write one self-contained page and its figures from finished runs."""

    runs: tyro.conf.Positional[Annotated[tuple[Path, ...], Length(1)]]
    """Folders to search for result.json, sweep.jsonl and horizon.json."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("report")
    """Folder of index.html, the figures as PNG and PDF, and rows.jsonl."""
    by: tuple[str, ...] = ()
    """Settings whose values form separate groups, for example online.treatment. Without it, runs
    with other settings than most of their group are left out."""
