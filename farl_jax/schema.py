"""What a value may be, declared beside its field, and one checker of it.

Settings, command lines and the files of a run folder are declared as dataclasses and TypedDicts
whose annotations say types and ranges: `discount: Annotated[float, Range(0, 1, high_open=True)]`.
`check` holds any value against such a declaration. It knows numbers, strings, Literal, unions,
lists, tuples, dictionaries, TypedDicts and dataclasses, and nothing else.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

MAX_INT = 2**63 - 1
_MAX_SHOWN = 60


class SchemaError(ValueError):
    """A value that its declaration does not allow. The message is one line: what, where, and

    what would be right.
    """


@dataclass(frozen=True)
class Range:
    """What a number may be; None is no bound. A bound may be another setting's dotted name."""

    low: float | str | None = None
    high: float | str | None = None
    low_open: bool = False
    """Whether `low` itself is not allowed."""
    high_open: bool = False

    def __str__(self) -> str:
        """The interval as mathematics writes it, for help texts: [0, 1)."""
        low = "-inf" if self.low is None else _number(self.low)
        high = "inf" if self.high is None else _number(self.high)
        left = "(" if self.low_open or self.low is None else "["
        return f"{left}{low}, {high}{')' if self.high_open or self.high is None else ']'}"

    def holds(self, value: float, low: float | None, high: float | None) -> bool:
        """Whether `value` lies within; `low` and `high` are the bounds as numbers."""
        above = low is None or (value > low if self.low_open else value >= low)
        return above and (high is None or (value < high if self.high_open else value <= high))

    def in_words(self, low: str, high: str) -> str:
        """The range as a sentence has it after "must be"; `low` and `high` name the bounds."""
        if self.low is not None and self.high is not None and not (self.low_open or self.high_open):
            return f"between {low} and {high}"
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.low_open else 'at least'} {low}")
        if self.high is not None:
            parts.append(f"{'below' if self.high_open else 'at most'} {high}")
        return " and ".join(parts)


@dataclass(frozen=True)
class Length:
    """How many elements a list or tuple must have, at least, and whether all must differ."""

    least: int
    distinct: bool = False


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, low_open=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
Fraction = Annotated[float, Range(0, 1, low_open=True, high_open=True)]
Rate = Annotated[float, Range(0, 1, low_open=True)]
Discount = Annotated[float, Range(0, 1, high_open=True)]
Seed = Annotated[int, Range(0, 2**32, high_open=True)]
"""JAX's keys have 32 bits: a larger seed would be the silent twin of a smaller one."""


class Checked:
    """Mixin of a dataclass whose fields are checked whenever an instance is made.

    Raises:
        SchemaError: a field's value is not what its annotation allows.
    """

    def __post_init__(self) -> None:
        """Check every field, but for bounds that other settings give; see `check_bounds`."""
        for name, hint in hints_of(type(self)).items():
            check(hint, getattr(self, name), f"{type(self).__name__}.{name}")


def check(hint: Any, value: Any, name: str) -> Any:
    """Return `value` if `hint` allows it; a dictionary becomes the dataclass that `hint` names.

    `name` is what an error calls the value. Bounds that name a setting are left to `check_bounds`.

    Raises:
        SchemaError: the type differs, a number is not finite or out of range, a field is unknown
            or missing.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        checked = check(arguments[0], value, name)
        for rule in arguments[1:]:
            _check_rule(rule, checked, name)
        return checked
    if typing.is_typeddict(hint):
        return _check_fields(hint, value, name)
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else hint(**_check_fields(hint, value, name))
    if origin in (typing.Union, types.UnionType):
        return _check_union(hint, arguments, value, name)
    if origin in (list, tuple, dict, Mapping):
        return _check_container(origin, arguments, value, name)
    if hint is int and isinstance(value, int) and abs(value) > MAX_INT:
        raise SchemaError(f"{name} must be at most {MAX_INT} in size; got {shown(value)}")
    if not _is(hint, origin, arguments, value):
        raise SchemaError(f"{name} must be {describe(hint)}; got {shown(value)}")
    return value


def check_bounds(settings: Any) -> None:
    """Check a tree of settings against those ranges whose bounds are other settings.

    `settings` is a dataclass of groups; a bound is the dotted name of a group's field.

    Raises:
        SchemaError: a setting lies beyond another one.
    """
    for group in dataclasses.fields(settings):
        own = getattr(settings, group.name)
        for name, hint in hints_of(type(own)).items():
            for rule in rules_of(hint):
                if isinstance(rule, Range):
                    _check_range(rule, getattr(own, name), f"{group.name}.{name}", settings)


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """Name -> annotation, ranges included, of the fields of a dataclass or TypedDict."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):
        return {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    return {name: _unwrapped(hint) for name, hint in hints.items()}


def describe(hint: Any) -> str:
    """What a value of this annotation is, in words: "a whole number or none"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return describe(arguments[0])
    if origin is typing.Literal:
        return _either([str(a) for a in arguments])
    if origin in (typing.Union, types.UnionType):
        return _either([describe(a) for a in arguments])
    return _NAMES.get(origin or hint) or (
        "a group of fields" if _has_fields(hint) else getattr(hint, "__name__", str(hint))
    )


def shown(value: Any) -> str:
    """A value as an error shows it: short, and as JSON would write it."""
    text = {None: "null"}.get(value) if value is None else repr(value)
    text = str(value).lower() if isinstance(value, bool) else text
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


_NAMES = {
    int: "a whole number",
    float: "a finite number",
    str: "text",
    bool: "true or false",
    types.NoneType: "none",
    list: "a list",
    tuple: "a list",
    dict: "a group of fields",
    Mapping: "a group of fields",
    Path: "a path",
}


def _unwrapped(hint: Any) -> Any:
    """A TypedDict's annotation without what says whether the field may be left out."""
    wrapped = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    return typing.get_args(hint)[0] if wrapped else hint


def _is(hint: Any, origin: Any, arguments: tuple[Any, ...], value: Any) -> bool:
    """Whether a value without parts is of a type."""
    if origin is typing.Literal:
        return any(type(value) is type(a) and value == a for a in arguments)
    if hint is float:
        return _is_number(value)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, types.NoneType if hint is None else hint)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _check_fields(kind: Any, value: Any, name: str) -> dict[str, Any]:
    """Check a dictionary against a dataclass (whose defaults may be left out) or TypedDict."""
    if not isinstance(value, dict):
        raise SchemaError(f"{name or 'the file'} must be a group of fields; got {shown(value)}")
    hints, inside = hints_of(kind), f" in {name}" if name else ""
    if unknown := [key for key in value if key not in hints]:
        known = ", ".join(hints)
        known = known if len(known) < 400 else f"{known[:400]}..."
        raise SchemaError(f"unknown field {shown(unknown[0])}{inside}: known are {known}")
    if missing := sorted(_required(kind) - set(value)):
        raise SchemaError(f"field {missing[0]!r}{inside} is missing")
    dotted = f"{name}." if name else ""
    return {key: check(hints[key], item, f"{dotted}{key}") for key, item in value.items()}


def _required(kind: Any) -> frozenset[str]:
    if typing.is_typeddict(kind):
        return kind.__required_keys__
    without = dataclasses.MISSING
    return frozenset(
        f.name
        for f in dataclasses.fields(kind)
        if f.default is without and f.default_factory is without
    )


def _check_union(hint: Any, options: tuple[Any, ...], value: Any, name: str) -> Any:
    """The first option that allows the value; where one option alone has its type, that option's

    error is told.
    """
    errors = []
    for option in options:
        try:
            return check(option, value, name)
        except SchemaError as error:
            if _outer(option, value):
                errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise SchemaError(f"{name} must be {describe(hint)}; got {shown(value)}")


def _outer(hint: Any, value: Any) -> bool:
    """Whether a value has an annotation's outermost type, so that only its parts are wrong."""
    bare = hint
    while typing.get_origin(bare) is Annotated:
        bare = typing.get_args(bare)[0]
    if _has_fields(bare):
        return isinstance(value, dict)
    origin = typing.get_origin(bare)
    if origin in (list, tuple):
        return isinstance(value, list | tuple)
    if origin in (dict, Mapping):
        return isinstance(value, dict)
    return _is(bare, origin, typing.get_args(bare), value)


def _check_container(kind: Any, arguments: tuple[Any, ...], value: Any, name: str) -> Any:
    if kind in (dict, Mapping):
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise SchemaError(f"{name} must be a group of fields; got {shown(value)}")
        return {key: check(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    if not isinstance(value, list | tuple):
        raise SchemaError(f"{name} must be a list; got {shown(value)}")
    if kind is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise SchemaError(f"{name} must have {len(arguments)} entries; it has {len(value)}")
        hints = arguments
    else:
        hints = (arguments[0],) * len(value)
    pairs = enumerate(zip(hints, value, strict=True))
    return kind(check(hint, item, f"{name}[{i}]") for i, (hint, item) in pairs)


def _check_rule(rule: Any, value: Any, name: str) -> None:
    if isinstance(rule, Length) and len(value) < rule.least:
        raise SchemaError(f"{name} must have at least {rule.least} entries; it has {len(value)}")
    if isinstance(rule, Length) and rule.distinct and len(set(value)) < len(value):
        raise SchemaError(f"{name} must have each entry once; got {shown(value)}")
    if isinstance(rule, Range):
        _check_range(rule, value, name, None)


def _check_range(rule: Range, value: Any, name: str, settings: Any) -> None:
    """Check a number; a bound that is a name counts only where `settings` can say its value."""
    if value is None:
        return
    bounds, words = [], []
    for bound in (rule.low, rule.high):
        named = isinstance(bound, str)
        number = _value_of(bound, settings) if named else bound
        bounds.append(number)
        words.append(f"{bound} ({_number(number)})" if named and number else _number(bound))
    if not rule.holds(value, *bounds):
        raise SchemaError(f"{name} must be {rule.in_words(*words)}; got {shown(value)}")


def _value_of(name: str, settings: Any) -> Any:
    """A setting by its dotted name; None where there are no settings to ask."""
    return None if settings is None else functools.reduce(getattr, name.split("."), settings)


def rules_of(hint: Any) -> tuple[Any, ...]:
    """The rules of an annotation, also where it is one of several options."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return arguments[1:]
    if origin in (typing.Union, types.UnionType):
        return tuple(rule for option in arguments for rule in rules_of(option))
    return ()


def _has_fields(hint: Any) -> bool:
    return typing.is_typeddict(hint) or dataclasses.is_dataclass(hint)


def _number(value: Any) -> str:
    """A bound as people write it: 4294967296, not 4294967296.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
