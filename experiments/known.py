"""Statistics that may not exist: None in JSON and `-` in a table."""

import math
from typing import Any


def known(value: Any) -> Any:
    """Return None for NaN, else `value`."""
    return None if isinstance(value, float) and math.isnan(value) else value


def shown(value: float | None, shape: str) -> str:
    """Return a number as text in a format such as ".1f", or `-` if there is none."""
    return "-" if known(value) is None else format(value, shape)
