"""A run's metrics as JSON Lines, with a copy for TensorBoard."""

import json
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NotRequired, Self, TypedDict

from farl_jax.schema import Amount, Name, Natural, Others, SchemaError, Single
from farl_jax.storage import json_files
from farl_jax.storage.files import write_text

FILE = "metrics.jsonl"
TENSORBOARD = "tb"

_RESERVED = ("phase", "step")
_BEGIN = b'{"phase": '


class _Any(TypedDict):
    phase: Name
    step: Natural


class _Online(TypedDict):
    phase: Literal["online"]
    step: Natural
    failure_episodes: Amount
    wall_seconds: Amount
    eval_return: NotRequired[Single | None]
    recovered_steps: NotRequired[Amount]


_VALUES = Others(Single | None)
Row = Annotated[_Any, _VALUES]
"""A row of any phase. Values are numbers, or null if not finite."""
OnlineRow = Annotated[_Online, _VALUES]
"""A row of the online phase, with the fields that figures and --resume need."""


class MetricsWriter:
    """Appends rows to `<folder>/metrics.jsonl` and scalars to `<folder>/tb/<phase>/`.

    A row is one JSON object: `phase`, `step` and the values, flushed when `write` returns. NaN and
    infinities become null, because JSON lacks them. An existing file is continued, without the last
    line if that is half written.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True) -> None:
        """Open for appending, and create `folder`.

        Raises:
            OSError: a disk error.
            SchemaError: the existing file is no metrics file.
        """
        self._folder = Path(folder)
        self._path = self._folder / FILE
        self._tensorboard = tensorboard
        self._boards: dict[str, _Board] = {}
        self._purge_steps: dict[str, int] = {}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._file = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, step: int, values: Mapping[str, float], phase: str) -> None:
        """Add the row of `step` (in the phase's unit) with scalar `values`.

        Raises:
            ValueError: a value is not a scalar, or is named `phase` or `step`.
            OSError: a disk error; it names the file.
        """
        if taken := [name for name in _RESERVED if name in values]:
            raise ValueError(
                f"a metric cannot be called {taken[0]!r}, because rows have that column"
            )
        scalars = {name: _scalar(name, value) for name, value in values.items()}
        row = {"phase": phase, "step": int(step), **scalars}
        with _named(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        if self._tensorboard:
            self._board(phase).add(int(step), scalars)

    def truncate_after(self, phase: str, step: int) -> int:
        """Drop the rows of `phase` after `step`, and return their number.

        The file is replaced in one rename, so a crash leaves the old rows or the new ones.
        """
        self._file.close()
        try:
            rows = read_metrics(self._path)
            kept = [row for row in rows if row["phase"] != phase or row["step"] <= step]
            if len(kept) < len(rows):
                write_text(self._path, "".join(json.dumps(row) + "\n" for row in kept))
        finally:
            self._file = self._open()
        if board := self._boards.pop(phase, None):
            board.close()
        self._purge_steps[phase] = step + 1
        return len(rows) - len(kept)

    def close(self) -> None:
        """Close all files. A second call does nothing."""
        try:
            with _named(self._path):
                self._file.close()
        finally:
            while self._boards:
                self._boards.popitem()[1].close()

    def _open(self) -> IO[str]:
        if self._path.exists():
            content = json_files.read_bytes(self._path)
            cut_off = bool(content) and not content.endswith(b"\n")
            if cut_off or self._path.is_symlink():  # a link is replaced by a file
                rows = read_metrics(self._path)
                write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        return open(self._path, "a", encoding="utf-8", opener=_open_itself)

    def _board(self, phase: str) -> "_Board":
        if phase not in self._boards:
            folder = self._folder / TENSORBOARD / phase
            self._boards[phase] = _Board(folder, self._purge_steps.get(phase))
        return self._boards[phase]


class _Board:
    """A TensorBoard file, written at once.

    tensorboardX's SummaryWriter writes from a thread. A full disk ends the thread, and training
    would wait for it forever.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        """Open a new file. Viewers drop older data from `purge_step` on."""
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._folder, self._scalar, self._event = folder, summary.scalar, event_pb2.Event
        folder.mkdir(parents=True, exist_ok=True)
        with _named(folder):  # absolute, as a leading "s3:" would be a protocol
            self._events = EventsWriter(str(folder.absolute() / "events"))
        if purge_step is not None:
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=purge_step, session_log=log)

    def add(self, step: int, scalars: Mapping[str, float | int | None]) -> None:
        """Add the finite values."""
        for name, value in scalars.items():
            if value is not None:
                self._write(step=step, summary=self._scalar(name, value))

    def close(self) -> None:
        """Close the file."""
        with _named(self._folder):
            self._events.close()

    def _write(self, **content: Any) -> None:
        with _named(self._folder):
            self._events.write_event(self._event(wall_time=time.time(), **content))


def _open_itself(path: str, flags: int) -> int:
    """Open a file without following a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError of the body. Errors of writing lack it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def read_metrics(path: Path, kind: Any = Row) -> list[dict[str, Any]]:
    """Return the rows of a metrics file, oldest first, each checked against `kind`.

    A half-written last line is left out with a warning.

    Raises:
        SchemaError: the file cannot be read, or another line is no such row; the message names it.
    """
    content = json_files.read_bytes(path)
    whole, _, last = content.rpartition(b"\n")
    if _is_half(last):
        warnings.warn(f"{path}: left out a half-written last line", stacklevel=2)
        content = whole
    return json_files.rows(content, kind, path)


def _is_half(line: bytes) -> bool:
    """Whether a line without an end is a half-written row of a killed process."""
    if not (line.startswith(_BEGIN) or _BEGIN.startswith(line)):
        return False
    try:
        json_files.parse(line, "")
    except SchemaError:
        return bool(line)
    return False


def _scalar(name: str, value: Any) -> float | int | None:
    """A Python number from a Python, NumPy or JAX scalar; None if not finite."""
    value = value.item() if hasattr(value, "item") and getattr(value, "size", 1) == 1 else value
    if not isinstance(value, bool | int | float):
        raise ValueError(f"metric {name!r} is not a scalar: {type(value).__name__}")
    return int(value) if isinstance(value, int) else value if math.isfinite(value) else None
