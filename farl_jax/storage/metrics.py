"""A run's metrics as JSON Lines, with a copy for a viewer."""

import json
import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal, NotRequired, Self, TypedDict

from farl_jax.schema import Amount, Name, Natural, Others, SchemaError, Single
from farl_jax.storage import json_files
from farl_jax.storage.files import named_errors, write_text
from farl_jax.storage.trackers import Open, Tracker

FILE = "metrics.jsonl"

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
    """Appends rows to `<folder>/metrics.jsonl`, and gives each phase's rows to a tracker.

    A row is one JSON object: `phase`, `step` and the values, flushed when `write` returns. NaN and
    infinities become null, because JSON lacks them. An existing file is continued, without the last
    line if that is half written.
    """

    def __init__(self, folder: Path, track: Open | None = None) -> None:
        """Open for appending, and create `folder`. Without `track` there is no copy.

        Raises:
            OSError: a disk error.
            SchemaError: the existing file is no metrics file.
        """
        self._folder = Path(folder)
        self._path = self._folder / FILE
        self._track = track
        self._trackers: dict[str, Tracker] = {}
        self._first_steps: dict[str, int] = {}
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
        with named_errors(self._path):
            self._file.write(json.dumps(row, allow_nan=False) + "\n")
            self._file.flush()
        if self._track is not None:
            self._tracker(phase).add(int(step), scalars)

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
        if tracker := self._trackers.pop(phase, None):
            tracker.close()
        self._first_steps[phase] = step + 1
        return len(rows) - len(kept)

    def close(self) -> None:
        """Close all files. A second call does nothing."""
        try:
            with named_errors(self._path):
                self._file.close()
        finally:
            while self._trackers:
                self._trackers.popitem()[1].close()

    def _open(self) -> IO[str]:
        if self._path.exists():
            content = json_files.read_bytes(self._path)
            cut_off = bool(content) and not content.endswith(b"\n")
            if cut_off or self._path.is_symlink():  # a link is replaced by a file
                rows = read_metrics(self._path)
                write_text(self._path, "".join(json.dumps(row) + "\n" for row in rows))
        return open(self._path, "a", encoding="utf-8", opener=_open_itself)

    def _tracker(self, phase: str) -> Tracker:
        if phase not in self._trackers:
            first = self._first_steps.get(phase, 0)
            self._trackers[phase] = self._track(self._folder, phase, first)
        return self._trackers[phase]


def _open_itself(path: str, flags: int) -> int:
    """Open a file without following a link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


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
