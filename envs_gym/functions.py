"""Optional functions of a user's module about its environment; they take NumPy arrays."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from envs_gym.errors import HostError, blame

Array = np.ndarray


class Functions(NamedTuple):
    """All functions take one observation [D]. Actions [A] are in the environment's units."""

    failure: Callable[[Array, dict], Any] | None = None  # (obs after the step, info) -> bool
    success: Callable[[Array, dict], Any] | None = None  # the same
    failure_margin: Callable[[Array], Any] | None = None  # obs -> distance, negative if failing
    expert: Callable[[Array], Array] | None = None
    careless: Callable[[Array, float], Array] | None = None  # its trait lies in [0, 1)
    recovery: Callable[[Array], Array] | None = None
    danger_margin: float | None = None  # in the failure margin's unit, like safe_margin
    safe_margin: float | None = None
    danger_lead: float = 0.0  # steps

    @property
    def has_margin(self) -> bool:
        """Whether failure has a distance."""
        return self.failure_margin is not None


def find_functions(module: ModuleType) -> Functions:
    """Return a module's functions and upper-case numbers that have these names.

    Raises:
        HostError: a name has a wrong type, or the failure margin has no thresholds.
    """
    numbers = ("danger_margin", "safe_margin", "danger_lead")
    found: dict[str, Any] = {}
    for name in Functions._fields:
        written = name.upper() if name in numbers else name
        value = getattr(module, written, None)
        if value is None:
            continue
        fits = isinstance(value, int | float) if name in numbers else callable(value)
        if not fits:
            kind = "a number" if name in numbers else "a function"
            raise HostError(f"module {module.__name__}: {written} must be {kind}")
        found[name] = value
    own = Functions(**found)
    if own.has_margin and (own.danger_margin is None or own.safe_margin is None):
        raise HostError(
            f"module {module.__name__} has a failure_margin but no thresholds: give "
            "DANGER_MARGIN, where recovery begins, and SAFE_MARGIN, where it has succeeded"
        )
    if own.has_margin and not own.safe_margin > 0:
        raise HostError(f"module {module.__name__}: SAFE_MARGIN must be above 0")
    return own


def by_row(function: Callable[..., Any], name: str, *columns: Array) -> list[Any]:
    """Call a function for each row of the columns [N, ...].

    Raises:
        HostError: the function raised; the message says where.
    """
    rows = [np.asarray(column) for column in columns]
    try:
        return [function(*row) for row in zip(*rows, strict=True)]
    except Exception as error:
        raise blame(f"its function {name}", error) from error
