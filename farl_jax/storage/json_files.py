"""Strict readers of JSON files: bounded size and depth, checked types.

A run's file may be foreign, incomplete or of another version. A reader names the type that the file
must have. An error is one line with the file and the field.
"""

import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farl_jax.schema import SchemaError, check

MAX_BYTES = 1 << 28
"""Limit of a file's size."""
MAX_TEXT = 1 << 24
"""Limit of a JSON text, a file or a line. Larger ones could need all memory."""
MAX_DEPTH = 20
"""Limit of nested groups and lists."""
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a surrogate pair, which is no valid text."""


def parse(text: str | bytes, where: str) -> Any:
    """Parse strict JSON, without NaN.

    Raises:
        SchemaError: it is not JSON, too long, or nested too deeply. The message begins with
            `where`.
    """
    if len(text) > MAX_TEXT:
        raise SchemaError(f"{where}: not ours: {len(text):,} bytes are too many")
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        value = json.loads(text, parse_constant=_no_constant)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeError as error:
        raise SchemaError(f"{where}: not a text file, so not JSON") from error
    except RecursionError as error:
        raise SchemaError(f"{where}: not ours: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        if not text[error.pos :].strip():
            raise SchemaError(f"{where}: empty or cut off; write it again") from error
        line = f", line {error.lineno}" if "\n" in text.strip() else ""
        raise SchemaError(f"{where}{line}: not JSON: {error.msg}") from error
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise SchemaError(f"{where}: not JSON: {' '.join(str(error).split())[:80]}") from error
    if _is_deep(value):
        raise SchemaError(f"{where}: not ours: it is nested too deeply")
    return value


def read(path: Path, kind: Any) -> Any:
    """Return the value of a JSON file, checked against `kind`: a dataclass, TypedDict or any hint.

    Raises:
        SchemaError: missing, unreadable, too large, not JSON, or not of this kind. The message
            names file and field.
    """
    return _checked(read_bytes(path), kind, str(path))


def read_rows(
    path: Path, kind: Any, left_out: Callable[[str, str], None] | None = None
) -> list[Any]:
    """Return the rows of a JSON Lines file, checked against `kind`. See `rows`.

    Raises:
        SchemaError: the file cannot be read, or without `left_out` a line is no such row.
    """
    return rows(read_bytes(path), kind, path, left_out)


def rows(
    content: bytes, kind: Any, path: Path, left_out: Callable[[str, str], None] | None = None
) -> list[Any]:
    """Return the rows of JSON Lines, without empty lines.

    `left_out(line, reason)` is called for a line that is no such row, and the line is skipped.

    Raises:
        SchemaError: a line is no such row, and there is no `left_out`. The message names file, line
            and field.
    """
    found = []
    for number, line in enumerate(content.split(b"\n"), 1):
        where = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            found.append(_checked(line, kind, where))
        except SchemaError as error:
            if left_out is None:
                raise
            left_out(where, str(error).removeprefix(f"{where}: "))
    return found


def read_bytes(path: Path) -> bytes:
    """Return a plain file's content.

    Raises:
        SchemaError: missing, no plain file, unreadable, or above `MAX_BYTES`.
    """
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise SchemaError(f"{path}: not a plain file; check the path")
        if about.st_size > MAX_BYTES:
            raise SchemaError(f"{path}: not ours: {about.st_size:,} bytes are too many")
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise SchemaError(f"{path}: no such file; check the path") from error
    except OSError as error:
        raise SchemaError(f"{path}: cannot be read: {error.strerror or error}") from error


def _checked(text: bytes, kind: Any, where: str) -> Any:
    value = parse(text, where)
    try:
        return check(kind, value, "")
    except SchemaError as error:
        raise SchemaError(f"{where}: {error}") from error


def _is_deep(value: Any) -> bool:
    """Whether groups and lists are nested deeper than `MAX_DEPTH`, found without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        inside = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for values in inside for v in values if isinstance(v, dict | list)]
        if not level:
            return False
    return True


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
