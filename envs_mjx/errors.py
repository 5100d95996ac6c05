"""The one exception of this package."""

import difflib
from collections.abc import Iterable


class EnvError(ValueError):
    """An environment was asked for something that it cannot be or do."""


def closest(name: str, valid: Iterable[str]) -> str:
    """Return `valid` as text, led by the entry closest to `name` where one is close."""
    names = sorted(valid)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}valid: {', '.join(names)}"
