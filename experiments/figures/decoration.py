"""Films and figures beside a command's work: whatever becomes of them, the work is done."""

from collections.abc import Iterator
from contextlib import contextmanager

from experiments.process import signals
from experiments.process.console import warn


@contextmanager
def decoration(what: str, way: str) -> Iterator[None]:
    """Turn an error of the body into one warning: there is no `what`, why, and the `way` to get it.

    Only a signal ends the work here, too.
    """
    try:
        yield
    except Exception as error:
        if signals.requested():
            raise
        kind = type(error)
        named = [kind.__name__] if kind.__module__ == "builtins" else []
        reason = ": ".join([*named, *filter(None, [str(error)])]) or kind.__name__
        warn(f"no {what}: {reason}; {way}")
