"""Output files: checked before the work, and written whole or not at all."""

import errno
import json
import os
import tempfile
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from experiments.errors import UserError, disk_errors
from farl_jax.storage import files

FIGURES = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")
"""Suffixes of the formats that matplotlib writes without other programs."""


def check_output(option: str, path: Path | None, suffixes: Collection[str] = ()) -> None:
    """Refuse a file that cannot be written, and make its folder.

    Args:
        option: of the command line that names the file.
        path: the file, or None for no file.
        suffixes: the allowed ones; empty allows any.

    Raises:
        UserError: one line.
    """
    if path is None:
        return
    if suffixes and path.suffix.lower() not in suffixes:
        ways = suffixes[0] if len(suffixes) == 1 else f"one of {', '.join(suffixes)}"
        raise UserError(f"{option} {_shown(path)} must end in {ways}")
    try:
        if path.exists() and not path.is_file():
            kind = "a folder" if path.is_dir() else "no regular file"
            raise UserError(f"{option} {_shown(path)} is {kind}; name a file")
        with tempfile.NamedTemporaryFile(dir=_made(path.parent), prefix=path.name):
            pass  # this also finds a name that is too long
    except (OSError, ValueError) as error:
        raise _refusal(option, path, error) from error


def check_output_folder(option: str, path: Path) -> None:
    """Make a command's output folder, or refuse it.

    Raises:
        UserError: one line.
    """
    try:
        with tempfile.TemporaryFile(dir=_made(path)):
            pass
    except (OSError, ValueError) as error:
        raise _refusal(option, path, error) from error


def _made(folder: Path) -> Path:
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _refusal(option: str, path: Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{option} {_shown(path)} cannot be written ({reason}); choose another place")


def _shown(path: Path) -> str:
    """The path in quotes, without control characters, and short."""
    return repr(str(path)[:200])


def write_json(path: Path, obj: Any) -> None:
    """Write `obj` as strict JSON. A reader sees the old file or the new one, never a part.

    Raises:
        UserError: a disk error.
        ValueError, TypeError: `obj` has no JSON form (for example NaN).
    """
    write_text(path, json.dumps(obj, indent=2, allow_nan=False) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines, one row per line, whole or not at all."""
    write_text(path, "".join(json.dumps(dict(row), allow_nan=False) + "\n" for row in rows))


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all.

    Raises:
        UserError: a disk error.
    """
    with disk_errors(path):
        files.write_text(path, text)
