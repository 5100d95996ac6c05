"""Rules on a value beyond its type. They stand in an Annotated."""

import functools
from dataclasses import dataclass
from typing import Annotated, Any

from farl_jax.schema_words import as_number, shown

SINGLE_MAX = 3.4028235e38


class SchemaError(ValueError):
    """A value that its annotation does not allow.

    The message is one line: what is wrong, where, and which values are allowed.
    """


@dataclass(frozen=True)
class Range:
    """Range of a number. None is no bound. A bound may be another setting's dotted name."""

    low: float | str | None = None
    high: float | str | None = None
    low_open: bool = False
    """Whether `low` itself is excluded."""
    high_open: bool = False

    def __str__(self) -> str:
        """The interval for help texts: [0, 1)."""
        low = "-inf" if self.low is None else as_number(self.low)
        high = "inf" if self.high is None else as_number(self.high)
        left = "(" if self.low_open or self.low is None else "["
        return f"{left}{low}, {high}{')' if self.high_open or self.high is None else ']'}"

    def holds(self, value: float, low: float | None, high: float | None) -> bool:
        """Whether `value` is in the range. `low` and `high` are the bounds as numbers."""
        above = low is None or (value > low if self.low_open else value >= low)
        return above and (high is None or (value < high if self.high_open else value <= high))

    def in_words(self, low: str, high: str) -> str:
        """The range in words, to follow "must be". `low` and `high` name the bounds."""
        if self.low is not None and self.high is not None and not (self.low_open or self.high_open):
            return f"between {low} and {high}"
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.low_open else 'at least'} {low}")
        if self.high is not None:
            parts.append(f"{'below' if self.high_open else 'at most'} {high}")
        return " and ".join(parts)

    def check(self, value: Any, name: str, settings: Any = None) -> None:
        """Refuse a number out of range. Without `settings`, bounds by name are not checked."""
        if value is None:
            return
        named = [isinstance(bound, str) for bound in (self.low, self.high)]
        bounds = [
            _value_of(bound, settings) if is_name else bound
            for bound, is_name in zip((self.low, self.high), named, strict=True)
        ]
        if self.holds(value, *bounds):
            return
        words = [
            f"{bound} ({as_number(number)})" if is_name and number else as_number(bound)
            for bound, number, is_name in zip((self.low, self.high), bounds, named, strict=True)
        ]
        raise SchemaError(f"{name} must be {self.in_words(*words)}; got {shown(value)}")

    @property
    def refers(self) -> bool:
        """Whether a bound is another setting's value."""
        return isinstance(self.low, str) or isinstance(self.high, str)


@dataclass(frozen=True)
class Length:
    """Number of elements of a list or text, and whether all must differ."""

    least: int
    distinct: bool = False
    most: int | None = None

    def check(self, value: Any, name: str) -> None:
        """Refuse a value that is too short, too long, or has an entry twice."""
        what = "characters" if isinstance(value, str) else "entries"
        if len(value) < self.least:
            raise SchemaError(f"{name} must have at least {self.least} {what}; got {len(value)}")
        if self.most is not None and len(value) > self.most:
            raise SchemaError(f"{name} must have at most {self.most} {what}; got {len(value)}")
        if self.distinct and len(set(value)) < len(value):
            raise SchemaError(f"{name} must not have an entry twice; got {shown(value)}")


@dataclass(frozen=True)
class Others:
    """Further fields of a TypedDict: names that contain `mark`, all of one kind."""

    kind: Any
    mark: str = ""


@dataclass(frozen=True)
class Alike:
    """Fields of a TypedDict whose lists must have one length: the columns of a table."""

    names: tuple[str, ...]

    def check(self, value: Any, name: str) -> None:
        """Refuse lists of different lengths."""
        lengths = {key: len(value[key]) for key in self.names}
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            raise SchemaError(f"{name} must have lists of one length; {told}")


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, low_open=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, low_open=True, high_open=True)]
Rate = Annotated[float, Range(0, 1, low_open=True)]
Discount = Annotated[float, Range(0, 1, high_open=True)]
Seed = Annotated[int, Range(0, 2**32, high_open=True)]
"""JAX's keys have 32 bits. A larger seed would give the numbers of a smaller one."""
Single = Annotated[float, Range(-SINGLE_MAX, SINGLE_MAX)]
"""A measured number of 32 bits. Sums of larger ones would overflow."""
Amount = Annotated[float, Range(0, SINGLE_MAX)]
"""A measured number that is not negative, such as seconds or a mean of counts."""
Name = Annotated[str, Length(1, most=200)]
"""A text short enough for figures and tables."""


def _value_of(name: str, settings: Any) -> Any:
    """A setting by its dotted name. None without settings."""
    return None if settings is None else functools.reduce(getattr, name.split("."), settings)
