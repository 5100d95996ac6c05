"""Errors that a user can put right: one line each."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(Exception):
    """Something its user can put right. One line; a command prints it and exits with 2."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of the body (full disk, read-only folder) into a UserError about `path`."""
    try:
        yield
    except OSError as error:
        culprit = error.filename or path
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        way = "free some space, then go on with --resume" if full else "choose another place"
        raise UserError(f"{culprit}: {error.strerror or error}; {way}") from error
