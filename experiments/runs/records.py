"""What the files of a run, a sweep and a report hold, each declared once.

Whoever reads one checks it against its declaration (`farl_jax.storage.json_files`); rows stay
dictionaries. A field that an older version did not write is NotRequired: every file that this
project ever wrote can be read. `config.json` is `experiments.runs.presets.RunSettings`; metrics are
`farl_jax.storage.metrics`.
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
    """The checkout that a command ran from."""

    commit: str
    dirty: bool


class Device(TypedDict):
    """What JAX computed on."""

    platform: str
    kind: str
    count: Count


class Session(TypedDict, total=False):
    """A command that worked in a run's folder, and on what."""

    command: list[str]
    packages: dict[str, str | None]
    python: str
    platform: str
    cpu_count: Count | None
    device: Device
    git: Git | None


class Environment(Session):
    """env.json: who started the run, and who opened it again."""

    resumed: NotRequired[list[Session]]


class Saved(TypedDict):
    """config.json of any version, as a report compares it."""

    protocol: int
    task: Name
    preset: Name
    seed: Seed
    backend: str | None
    config: dict[str, dict[str, Setting]]


class Outcome(TypedDict):
    """What every row says of one method's training, whatever file it stands in."""

    task: Name
    method: Name
    seed: Seed
    online_steps: Natural
    episodes: Natural
    failure_episodes: Natural
    failing_steps: Natural
    recovered_steps: Natural
    causes: NotRequired[dict[str, Natural] | None]
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
    """What a result says besides."""

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
    """What an artefact was made from: the run's settings, and SHA-256 of data by name."""

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
"""Swept settings stand in a row by their dotted names."""
SweepRow = Annotated[_Cell, SWEPT]
"""A line of sweep.jsonl."""
FailedRow = Annotated[_Failure, SWEPT]
"""A line of failed.jsonl."""


class Note(TypedDict):
    """failed/<name>.json: what another process said of its failure."""

    error: str
    traceback: NotRequired[str]


Jobs = dict[str, str]
"""slurm/jobs.json: name -> job."""

# --- farl reproduce ------------------------------------------------------------------------------


class MainRow(Outcome):
    """A line of main.jsonl."""

    method: Literal[tuple(METHODS)]
    command: NotRequired[str]
    git: str | None
    settings: str


class Paper(TypedDict):
    """paper_numbers.json: task -> method -> number, or return before and after."""

    source: str
    failure_episodes: dict[str, dict[str, Amount]]
    normalized_return: dict[str, dict[str, tuple[Single, Single]]]


# --- farl sweep horizon, farl diagnose -----------------------------------------------------------


class Alarms(TypedDict):
    """What a gate would have foreseen; null where nothing could be measured."""

    max_risk: Single
    trigger_rate: Share | None
    precision: Share | None
    recall: Share | None
    lead: Amount | None
    onsets: Amount


class Watched(Alarms):
    """The same, and recall by lead time."""

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
"""What happened behind a gate, with 95 % limits."""


class HorizonRow(TypedDict):
    """One gate of a study."""

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
    """A policy under a world model."""

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
