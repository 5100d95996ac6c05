"""The one exception of this package, also where JAX has wrapped it."""

import logging
import os
import re
import traceback


class HostError(ValueError):
    """A user's environment, or one of its functions, is or does what cannot be trained on."""


def message_of(error: BaseException) -> str | None:
    """Return the line of a `HostError`, also of one raised inside a callback; None of others."""
    if isinstance(error, HostError):
        return str(error)
    found = re.findall(r"^HostError: (.*)$", str(error), flags=re.MULTILINE)
    return found[-1] if found else None


def blame(what: str, error: BaseException) -> HostError:
    """Return one line for what a user's code has raised: `what` it did, its error, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(os.path.dirname(__file__))]
    place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    said = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    return HostError(f"{what} raised {said}{place}")


def _not_ours(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HostError))


# JAX prints the traceback of a callback that raises; ours end in one line of the command.
logging.getLogger("jax._src.callback").addFilter(_not_ours)
