"""Files written whole or not at all, never through a link; and checks of a run's folder."""

import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LEFTOVER = ".incoming-"
"""Prefix of incomplete files. A killed process leaves some."""


@contextmanager
def replacing(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield an empty file, or with `folder` an empty folder, that becomes `path` at the end.

    It is beside `path`, with a random name, the same suffix and an absolute path. At the end it
    replaces a file or link at `path`, and links are not followed. If the body fails it is removed.

    Raises:
        OSError: a disk error; `filename` is `path`.
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
    """Write `text` as UTF-8. A reader sees the old file or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def named_errors(path: Path) -> Iterator[None]:
    """Add the file's name to an OSError of the body. Errors of writing lack it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def fault_of(path: Path, root: Path) -> str | None:
    """The reason why `path` is not data of the folder `root`, or None.

    Data are files, folders, and links to these inside `root`. Links to elsewhere, circular links,
    FIFOs, sockets and devices are not.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:  # a dangling link, or just deleted
        mode = stat.S_IFREG
    except OSError as error:
        return f"cannot be followed ({error.strerror})"
    within = os.path.join(os.path.realpath(root), "")
    if os.path.islink(path) and not os.path.join(os.path.realpath(path), "").startswith(within):
        return "is a link to outside of the folder"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "is neither a file nor a folder"


def find_fault(root: Path) -> tuple[Path, str] | None:
    """The first entry below `root` that is not its data, and the reason. See `fault_of`."""
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
    """Yield (folder, names of its folders, other names) from `root` downwards, at any depth.

    It is `os.walk` without the recursion limit. Links are not followed, folder names that the
    caller removes are not visited, and `closed` gets the errors of folders that do not open.
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
    """Remove the incomplete files of killed processes below `root`."""
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
