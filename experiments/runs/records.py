"""Types of the files of a run, a sweep and a report.

Readers check a file against its type (`farl_jax.storage.json_files`), and rows stay dictionaries.
Fields that older versions lack are NotRequired, so every older file can be read. `config.json` is
`experiments.runs.presets.RunSettings`, and metrics are in `farl_jax.storage.metrics`.
"""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from farl_jax.config import HorizonConfig
from farl_jax.methods import METHODS
from farl_jax.schema import (
    Alike,
    Amount,
    Count,
    Length,
    Name,
    Natural,
    Others,
    Seed,
    Share,
    Single,
)

Row = dict[str, Any]
Setting = bool | int | Single | str | None
Interval = tuple[Single | None, Single | None]
Curve = list[Single | None]

# --- a run ---------------------------------------------------------------------------------------


class Git(TypedDict):
    """The checkout of a command."""

    commit: str
    dirty: bool


class Device(TypedDict):
    """JAX's devices."""

    platform: str
    kind: str
    count: Count


class Session(TypedDict, total=False):
    """A command in a run's folder, and its machine."""

    command: list[str]
    packages: dict[str, str | None]
    python: str
    platform: str
    cpu_count: Count | None
    device: Device
    git: Git | None


class Environment(Session):
    """env.json: the command that started the run, and those that opened it again."""

    resumed: NotRequired[list[Session]]


class Saved(TypedDict):
    """config.json of any version."""

    protocol: int
    task: Name
    preset: Name
    seed: Seed
    backend: str | None
    config: dict[str, dict[str, Setting]]


class Outcome(TypedDict):
    """Fields of one method's training, in rows of any file."""

    task: Name
    method: Name
    seed: Seed
    online_steps: Natural
    episodes: Natural
    failure_episodes: Natural
    failing_steps: Natural
    recovered_steps: Natural
    causes: NotRequired[dict[str, Natural] | None]
    control_episodes: NotRequired[Natural | None]
    control_failure_episodes: NotRequired[Natural | None]
    offline_steps: NotRequired[Natural | None]
    offline_episodes: NotRequired[Natural | None]
    offline_failure_episodes: NotRequired[Natural | None]
    initial_return: Single
    final_return: Single
    initial_success: Share
    final_success: Share
    max_risk: NotRequired[Single | None]
    wall_seconds: Amount
    backend: str


class Measured(Outcome):
    """Further fields of a result."""

    preset: Name
    successes: Natural
    diverged: NotRequired[Natural]
    final_return_se: Single | None
    final_failure_rate: Share
    final_return_without_gate: Single
    final_success_without_gate: Share
    cost_limit: NotRequired[Single]
    cost_rate: NotRequired[Single]
    multiplier: NotRequired[Single]


class MadeFrom(TypedDict):
    """Provenance of an artefact: the run's settings, and SHA-256 of its sources by name."""

    settings: Saved
    sources: dict[str, str]


class Result(Measured):
    """result.json."""

    git: NotRequired[Git | None]
    made_from: NotRequired[MadeFrom]


# --- sweeps --------------------------------------------------------------------------------------


class _Cell(Measured):
    cell: str
    command: str
    git: str | None


class _Failure(TypedDict):
    cell: str
    method: Name
    seed: Seed
    error: str
    traceback: NotRequired[str]


SWEPT = Others(Setting, mark=".")
"""Swept settings in a row, by their dotted names."""
SweepRow = Annotated[_Cell, SWEPT]
"""A line of sweep.jsonl."""
FailedRow = Annotated[_Failure, SWEPT]
"""A line of failed.jsonl."""


class Note(TypedDict):
    """failed/<name>.json: another process's failure."""

    error: str
    traceback: NotRequired[str]


Jobs = dict[str, str]
"""slurm/jobs.json: name -> job."""

# --- farl reproduce ------------------------------------------------------------------------------


class MainRow(Outcome):
    """A line of main.jsonl."""

    method: Literal[tuple(METHODS)]
    final_failure_rate: NotRequired[Share | None]
    final_return_without_gate: NotRequired[Single | None]
    final_success_without_gate: NotRequired[Share | None]
    command: NotRequired[str]
    git: str | None
    settings: str


class Paper(TypedDict):
    """paper_numbers.json: task -> method -> number, or return before and after.

    Failing pairs are of 50 episodes of its real robot, and so is the mean performance gain.
    """

    source: str
    failure_episodes: dict[str, dict[str, Amount]]
    failing_pairs: dict[str, dict[str, Amount]]
    performance_gain_percent: Single
    normalized_return: dict[str, dict[str, tuple[Single, Single]]]


# --- farl sweep horizon, farl diagnose -----------------------------------------------------------


class Alarms(TypedDict):
    """Alarms of a gate on ungated steps; null if there is nothing to measure."""

    max_risk: Single
    trigger_rate: Share | None
    precision: Share | None
    recall: Share | None
    lead: Amount | None
    onsets: Amount


class Watched(Alarms):
    """Alarms, and recall by lead time."""

    recall_by_lead: list[Share | None]


Acting = TypedDict(
    "Acting",
    {
        "episodes": Natural,
        "failure_episodes": Natural,
        "return": Single | None,
        "trigger_rate": Share | None,
        "reduction_percent": Single | None,
        "failure_rate": Share | None,
        "success": Share | None,
        "recovered_share": Share,
        "return_interval": Interval,
        "trigger_rate_interval": Interval,
        "reduction_percent_interval": Interval,
        "failure_rate_interval": Interval,
        "success_interval": Interval,
        "recovered_share_interval": Interval,
    },
)
"""Results of an acting gate, with 95 % limits."""


class HorizonRow(TypedDict):
    """One gate of a horizon study."""

    horizon: Count
    gamma_risk: Share
    max_risk: Single | None
    beyond_training: bool
    target_rate: Share
    watched: Watched
    acting: Acting


class Study(TypedDict):
    """horizon.json and horizon_offline.json."""

    task: Name
    seed: Seed
    method: Name
    policy_step: Natural
    train_horizon: Count
    hold: Count
    lead_time: Natural
    study: HorizonConfig
    gate_seconds: dict[str, Amount]
    ungated: Acting
    rows: Annotated[list[HorizonRow], Length(1)]
    command: str


class _Foresight(TypedDict):
    auroc: Curve
    auprc: Curve
    ece: Curve
    rate: Curve


class _Reliability(TypedDict):
    predicted: Curve
    realised: Curve
    events: NotRequired[Curve]


class _Decoder(TypedDict):
    hand: Curve
    object: Curve


class Pair(TypedDict):
    """A policy with a world model."""

    episodes: Natural
    failure_episodes: Natural
    foresight: _Foresight
    reliability: Annotated[_Reliability, Alike(("predicted", "realised"))]
    worst_factor: NotRequired[Single | None]
    gate: Alarms
    thresholds: list[Alarms]
    decoder_m: _Decoder


class Diagnosis(TypedDict):
    """diagnosis.json."""

    max_risk: Single
    pairs: Annotated[dict[str, Pair], Length(1)]
