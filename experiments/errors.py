"""Errors that a user can fix. Each message is one line."""

import errno
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """An error that the user can fix. A command prints its one line and exits with 2."""


@contextmanager
def disk_errors(path: Path) -> Generator[None, None, None]:
    """Turn an OSError of the body (full disk, read-only folder) into a UserError about `path`."""
    try:
        yield
    except OSError as error:
        culprit = error.filename or path
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way = "free some space, then use --resume" if full else "choose another place"
        raise UserError(f"{culprit}: {error.strerror or error}; {way}") from error
