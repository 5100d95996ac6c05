"""The exceptions of this package, and names as their messages say them."""

import difflib
from collections.abc import Iterable

_LONG = 80  # characters of a name that a message repeats


class EnvError(ValueError):
    """An environment was asked for something that it cannot be or do."""


class RenderError(ValueError):
    """Nothing can be drawn or written. The message is one line and says what would help."""


def closest(name: str, valid: Iterable[str]) -> str:
    """Return `valid` as text, led by the entry closest to `name` where one is close."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name)[:_LONG], names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid: {', '.join(names)}"


def shown(name: str) -> str:
    """Return a name as a message repeats it: quoted, without control characters, not too long."""
    return repr(name if len(name) <= _LONG else f"{name[:_LONG]}...")
