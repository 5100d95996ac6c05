"""Files that appear whole or not at all, never through a link; and what a run's folder may hold."""

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LEFTOVER = ".incoming-"
"""Begins the names of what is not whole yet; a killed process leaves such names behind."""


@contextmanager
def replacing(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield an empty file, or with `folder` an empty folder, that becomes `path` at the end.

    It lies beside `path` under a name that nobody can foresee, with the same suffix and an absolute
    path. It replaces a file or a link of that name, which is never followed, and is gone if the
    body fails.

    Raises:
        OSError: the disk refuses; `filename` is `path`.
    """
    path = Path(path)
    temporary = path.absolute().with_name(f"{LEFTOVER}{secrets.token_hex(8)}{path.suffix}")
    try:
        if folder:
            temporary.mkdir()
        else:
            os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield temporary
        _flush(temporary)
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        _discard(temporary)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8; a reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def fault_of(path: Path, root: Path) -> str | None:
    """Why `path` is not data of the folder `root`; None for files, folders, and links to these.

    A link that leads out of `root` is not its data, nor is one that leads round in a circle, nor a
    FIFO, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # a link to nothing, or gone since it was seen
        mode = stat.S_IFREG
    except OSError as error:
        return f"cannot be followed ({error.strerror})"
    within = os.path.join(os.path.realpath(root), "")
    if os.path.islink(path) and not os.path.join(os.path.realpath(path), "").startswith(within):
        return "is a link that leads out of the folder"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is neither a file nor a folder"


def find_fault(root: Path) -> tuple[Path, str] | None:
    """The first entry of `root`, at any depth, that is not its data, and why; see `fault_of`."""
    waiting = [Path(root)]
    while waiting:
        with suppress(FileNotFoundError), os.scandir(waiting.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False) and (
                    fault := fault_of(Path(entry.path), root)
                ):
                    return Path(entry.path), fault
    return None


def walk(
    root: Path, closed: Callable[[OSError], Any] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield (folder, names of its folders, of all else) from `root` downwards, however deep.

    As `os.walk`, which has Python's limit of recursion. Links are not followed, names that the
    caller takes out of the folders are not visited, and `closed` is told of what does not open.
    """
    waiting = [Path(root)]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                kinds = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        except OSError as error:
            if closed is not None:
                closed(error)
            continue
        folders = sorted(name for name, is_folder in kinds.items() if is_folder)
        yield here, folders, sorted(set(kinds) - set(folders))
        waiting += [here / name for name in reversed(folders)]


def discard_leftovers(root: Path) -> None:
    """Remove what killed processes left below `root` when they were in the middle of a file."""
    for here, folders, names in walk(root):
        for name in (*folders, *names):
            if name.startswith(LEFTOVER):
                _discard(here / name)
        folders[:] = [name for name in folders if not name.startswith(LEFTOVER)]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    with suppress(OSError, RecursionError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
