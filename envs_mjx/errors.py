"""Exceptions of this package, and how their messages show names."""

import difflib
from collections.abc import Iterable

_LONG = 80  # most characters of a name in a message


class EnvError(ValueError):
    """An environment cannot be made or used as asked."""


class RenderError(ValueError):
    """A picture cannot be drawn or written. The message is one line and says what to do."""


def closest(name: object, valid: Iterable[str]) -> str:
    """Return `valid` as text, led by the entry closest to `name` where one is close."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name)[:_LONG], names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid: {', '.join(names)}"


def shown(name: str) -> str:
    """Return a name for a message: quoted, escaped and shortened."""
    return repr(name if len(name) <= _LONG else f"{name[:_LONG]}...")
