"""Copies of a run's metrics for a viewer: TensorBoard, Weights & Biases, Trackio, or none.

`TRACKERS` is the registry. A tracker is one class: `check` refuses it before anything is trained,
its constructor opens the rows of one phase, `add` takes a row, `close` ends it. The libraries of
W&B and Trackio are extras, imported only when their tracker is asked for.
"""

import contextlib
import contextvars
import importlib
import io
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from farl_jax.storage.files import named_errors, write_text

PROJECT = "farl-jax"
Values = Mapping[str, float | int | None]
"""Metric -> number, or None if it is not finite. Viewers get the numbers only."""


class TrackerError(Exception):
    """A tracker that cannot be used; one line."""


@dataclass(frozen=True)
class Label:
    """What a viewer shows about a run."""

    name: str = ""
    """Name of the run. A phase adds its own."""
    group: str = ""
    """Name of the runs that differ in seed and method only."""
    config: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None
    """Prints where the copy is."""


class Tracker(Protocol):
    """The rows of one phase of one run."""

    def add(self, step: int, values: Values) -> None:
        """Add a row."""

    def close(self) -> None:
        """Write what is left."""


Open = Callable[[Path, str, int], Tracker]
"""(folder, phase, first step) -> tracker. Above 0 a run continues: older rows from there on count
no more. At 0 the phase begins."""


class TensorBoard:
    """A file of events in `<folder>/tb/<phase>/`, written at once.

    tensorboardX's SummaryWriter writes from a thread. A full disk ends the thread, and training
    would wait for it forever.
    """

    def __init__(self, label: Label, folder: Path, phase: str, first: int) -> None:
        """Open a new file. Viewers drop older data from step `first` on."""
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._folder = folder / "tb" / phase
        self._scalar, self._event = summary.scalar, event_pb2.Event
        self._folder.mkdir(parents=True, exist_ok=True)
        name = str(self._folder.absolute() / "events")  # a leading "s3:" would be a protocol
        with named_errors(self._folder):  # the name has seconds only, and must be a new one
            self._events = EventsWriter(name, filename_suffix=f".{time.time_ns()}")
        log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(step=first, session_log=log)

    @staticmethod
    def check() -> None:
        """It is always installed."""

    def add(self, step: int, values: Values) -> None:
        """Write the finite values."""
        for name, value in _finite(values).items():
            self._write(step=step, summary=self._scalar(name, value))

    def close(self) -> None:
        """Close the file."""
        with named_errors(self._folder):
            self._events.close()

    def _write(self, **content: Any) -> None:
        with named_errors(self._folder):
            self._events.write_event(self._event(wall_time=time.time(), **content))


class WandB:
    """A run of Weights & Biases, whose files are in ./wandb or WANDB_DIR, as always.

    They hold links to elsewhere, which a run's folder must not. `<folder>/wandb/<phase>.id` keeps
    the run's ID, with which a resumed phase goes on in the same run.
    """

    def __init__(self, label: Label, folder: Path, phase: str, first: int) -> None:
        """Start the run, or continue it."""
        wandb = _library("wandb")
        known = folder / "wandb" / f"{phase}.id"
        known.parent.mkdir(parents=True, exist_ok=True)
        if first == 0 or not known.is_file():
            write_text(known, uuid.uuid4().hex[:12])
        with _told("wandb", "put it right, or set WANDB_MODE=offline"):
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT") or PROJECT,
                name=f"{label.name}/{phase}",
                group=label.group,
                config=dict(label.config),
                id=known.read_text(encoding="utf-8").strip(),
                resume="allow",
                reinit="create_new",  # several seeds may train at once
                settings=wandb.Settings(silent=True, console="off"),
            )
            # Rows are drawn over our own step, which may go back when a run is resumed.
            self._run.define_metric("step", hidden=True)
            self._run.define_metric("*", step_metric="step")
        local = f"wandb sync {Path(self._run.dir).parent}"
        label.say(f"  W&B: {self._run.url or local}")

    @staticmethod
    def check() -> None:
        """Refuse W&B without its package, or online without a key."""
        wandb = _library("wandb")
        way = "run wandb login, set WANDB_API_KEY, or set WANDB_MODE=offline"
        with _told("wandb", way):
            if wandb.setup().settings.mode in ("offline", "dryrun", "disabled"):
                return
            found = wandb.login(prompt=False)
        if not found:
            raise TrackerError(f"--track wandb has no key: {way}")

    def add(self, step: int, values: Values) -> None:
        """Log the finite values."""
        self._run.log({"step": step, **_finite(values)})

    def close(self) -> None:
        """Wait until everything is written or sent."""
        self._run.finish()


class Trackio:
    """A run of Trackio, in its own database on this machine (TRACKIO_DIR) or in a Space."""

    def __init__(self, label: Label, folder: Path, phase: str, first: int) -> None:
        """Start the run, or continue the newest one of this name."""
        trackio, name = _library("trackio"), f"{label.name}/{phase}"
        with _told("trackio", "put it right, or leave --track out"), _silent():
            # In a context of its own, because it ends the current context's run.
            self._run = contextvars.Context().run(
                trackio.init,
                project=PROJECT,
                name=name,
                group=label.group,
                config=dict(label.config),
                resume="allow" if first else "never",
                embed=False,
            )
        label.say(f"  Trackio: {name}; trackio show --project {PROJECT}")

    @staticmethod
    def check() -> None:
        """Refuse Trackio without its package, or a Space without a key."""
        _library("trackio")
        from huggingface_hub import get_token

        if os.environ.get("TRACKIO_SPACE_ID") and get_token() is None:
            raise TrackerError(
                "--track trackio has no key for the Space in TRACKIO_SPACE_ID: run hf auth login, "
                "set HF_TOKEN, or unset TRACKIO_SPACE_ID to write on this machine"
            )

    def add(self, step: int, values: Values) -> None:
        """Log the finite values."""
        self._run.log(_finite(values), step=step)

    def close(self) -> None:
        """Wait until everything is written or sent."""
        with _silent():
            self._run.finish()


class Nothing:
    """No copy."""

    def __init__(self, label: Label, folder: Path, phase: str, first: int) -> None:
        """Open nothing."""

    @staticmethod
    def check() -> None:
        """It needs nothing."""

    def add(self, step: int, values: Values) -> None:
        """Drop the row."""

    def close(self) -> None:
        """Do nothing."""


TRACKERS = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio, "none": Nothing}
"""`--track` -> tracker."""
FOLDERS = ("tb", "wandb")
"""Folders that trackers make beside metrics.jsonl."""


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise TrackerError(
            f"--track {name} needs {name}: pip install 'farl-jax[{name}]'"
        ) from error


def _finite(values: Values) -> dict[str, float | int]:
    return {name: value for name, value in values.items() if value is not None}


@contextlib.contextmanager
def _told(name: str, way: str) -> Iterator[None]:
    """Tell an error of a tracker's library, which may raise anything, in one line."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise TrackerError(f"--track {name}: {reason}; {way}") from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Drop what a library prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
