"""This package's exception, also when JAX has wrapped it."""

import logging
import os
import re
import traceback


class HostError(ValueError):
    """A user's environment or function cannot be used for training."""


def message_of(error: BaseException) -> str | None:
    """Return a `HostError`'s message, also from inside a callback; None for other errors."""
    if isinstance(error, HostError):
        return str(error)
    found = re.findall(r"^HostError: (.*)$", str(error), flags=re.MULTILINE)
    return found[-1] if found else None


def blame(what: str, error: BaseException) -> HostError:
    """Return a one-line error for an exception in the user's code at `what`, with its place."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(os.path.dirname(__file__))]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    said = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    return HostError(f"{what} raised {said}{place}")


def _not_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HostError))


# JAX prints the traceback of a failing callback; our errors are one line of the command.
logging.getLogger("jax._src.callback").addFilter(_not_ours)
