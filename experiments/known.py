"""Statistics of few: one that does not exist is None in JSON and `-` in a table."""

import math
from typing import Any


def known(value: Any) -> Any:
    """Return None for NaN, by which arithmetic says that there is no such number; else `value`."""
    return None if isinstance(value, float) and math.isnan(value) else value


def shown(value: float | None, shape: str) -> str:
    """Return a number as text of a format such as ".1f"; `-` where there is none."""
    return "-" if known(value) is None else format(value, shape)
