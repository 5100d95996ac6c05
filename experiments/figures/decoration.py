"""Films and figures whose failure does not end a command."""

from collections.abc import Iterator
from contextlib import contextmanager

from experiments.process import signals
from experiments.process.console import warn


@contextmanager
def decoration(what: str, way: str) -> Iterator[None]:
    """Turn an error of the body into one warning: no `what`, the reason, and the `way` to get it.

    A signal still ends the command.
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
