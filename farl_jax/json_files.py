"""JSON files as they are read: strict, of a bounded size, checked against a declaration."""

import json
import os
import stat
from pathlib import Path
from typing import Any

from farl_jax.schema import SchemaError, check

MAX_BYTES = 1 << 28
"""A larger file is none of ours."""


def parse(text: str | bytes, where: str) -> Any:
    """Return what JSON text says: strict JSON, so no NaN, of any depth that Python can hold.

    Raises:
        SchemaError: it is not JSON; the message begins with `where`.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise SchemaError(f"{where}: not a text file, so not JSON") from error
    except RecursionError as error:
        raise SchemaError(f"{where}: not ours: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        if not text[error.pos :].strip():
            raise SchemaError(f"{where}: empty or cut off; write it again") from error
        raise SchemaError(f"{where}, line {error.lineno}: not JSON: {error.msg}") from error
    except ValueError as error:  # NaN, or an integer of thousands of digits
        raise SchemaError(f"{where}: not JSON: {' '.join(str(error).split())[:80]}") from error


def read(path: Path, kind: Any) -> Any:
    """Return what a JSON file holds, checked against `kind`: a dataclass, a TypedDict, any hint.

    Raises:
        SchemaError: missing, unreadable, too large, not JSON, or not of this kind. The message
            names file and field.
    """
    value = parse(read_bytes(path), str(path))
    try:
        return check(kind, value, "")
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


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


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
