"""Declared types and ranges of values, and one checker for them.

Settings, command lines and the files of a run folder are dataclasses and TypedDicts whose
annotations give types and ranges: `discount: Annotated[float, Range(0, 1, high_open=True)]`.
`check` compares a value with its annotation. It knows numbers, strings, Literal, unions, lists,
tuples, dictionaries, TypedDicts and dataclasses. The rules `Range`, `Length`, `Others` and `Alike`
say what a type cannot.
"""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any

from farl_jax.schema_rules import (
    Alike,
    Amount,
    Count,
    Discount,
    Fraction,
    Length,
    Name,
    Natural,
    NonNegative,
    Others,
    Positive,
    Range,
    Rate,
    SchemaError,
    Seed,
    Share,
    Single,
)
from farl_jax.schema_words import describe, has_fields, shown

__all__ = [
    "MAX_INT",
    "Alike",
    "Amount",
    "Checked",
    "Count",
    "Discount",
    "Fraction",
    "Length",
    "Name",
    "Natural",
    "NonNegative",
    "Others",
    "Positive",
    "Range",
    "Rate",
    "SchemaError",
    "Seed",
    "Share",
    "Single",
    "check",
    "check_bounds",
    "describe",
    "hints_of",
    "rules_of",
    "shown",
]
MAX_INT = 2**63 - 1
_WHOLE = "it"


class Checked:
    """Mixin for a dataclass that checks its fields whenever an instance is made.

    Raises:
        SchemaError: a field's annotation does not allow its value.
    """

    def __post_init__(self) -> None:
        """Check every field. `check_bounds` checks bounds that are other settings."""
        for name, hint in hints_of(type(self)).items():
            check(hint, getattr(self, name), f"{type(self).__name__}.{name}")


def check(hint: Any, value: Any, name: str) -> Any:
    """Return `value` if `hint` allows it. A dictionary becomes the dataclass that `hint` names.

    Errors call the value `name`, "" for a whole file. `check_bounds` checks bounds that name a
    setting.

    Raises:
        SchemaError: the type differs, a number is not finite or out of range, a field is unknown
            or missing.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        bare, *rules = arguments
        others = next((rule for rule in rules if isinstance(rule, Others)), None)
        checked = _check_fields(bare, value, name, others) if others else check(bare, value, name)
        for rule in rules:
            if isinstance(rule, Range | Length | Alike):  # other libraries add rules, too
                rule.check(checked, name or _WHOLE)
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
        raise SchemaError(f"{name or _WHOLE} must be at most {MAX_INT} in size; got {shown(value)}")
    if not _is(hint, origin, arguments, value):
        raise SchemaError(f"{name or _WHOLE} must be {describe(hint)}; got {shown(value)}")
    return value


def check_bounds(settings: Any) -> None:
    """Check the ranges whose bounds are other settings.

    `settings` is a dataclass of groups. A bound is the dotted name of a group's field.

    Raises:
        SchemaError: a setting is beyond a bound.
    """
    for group in dataclasses.fields(settings):
        own = getattr(settings, group.name)
        for name, rule in _referring(type(own)):
            rule.check(getattr(own, name), f"{group.name}.{name}", settings)


@functools.cache
def _referring(kind: type) -> tuple[tuple[str, Range], ...]:
    """(field, range) for the ranges of a dataclass that refer to other settings."""
    rules = ((name, rule) for name, hint in hints_of(kind).items() for rule in rules_of(hint))
    return tuple((n, rule) for n, rule in rules if isinstance(rule, Range) and rule.refers)


@functools.cache
def hints_of(kind: type) -> dict[str, Any]:
    """Field name -> annotation, with its ranges, of a dataclass or TypedDict."""
    hints = typing.get_type_hints(kind, include_extras=True)
    if dataclasses.is_dataclass(kind):
        return {f.name: hints[f.name] for f in dataclasses.fields(kind)}
    return {name: _unwrapped(hint) for name, hint in hints.items()}


def _unwrapped(hint: Any) -> Any:
    """A TypedDict's annotation without Required or NotRequired."""
    wrapped = typing.get_origin(hint) in (typing.Required, typing.NotRequired)
    return typing.get_args(hint)[0] if wrapped else hint


def _is(hint: Any, origin: Any, arguments: tuple[Any, ...], value: Any) -> bool:
    """Whether a value without elements has a type."""
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


def _check_fields(kind: Any, value: Any, name: str, others: Others | None = None) -> dict[str, Any]:
    """Check a dictionary against a dataclass or TypedDict. Fields with a default may be missing."""
    if not isinstance(value, dict):
        raise SchemaError(f"{name or _WHOLE} must be a group of fields; got {shown(value)}")
    hints, inside = hints_of(kind), f" in {name}" if name else ""
    if others:
        hints = {key: others.kind for key in value if others.mark in key} | hints
    if unknown := [key for key in value if key not in hints]:
        known = ", ".join(hints)
        known = known if len(known) < 400 else f"{known[:400]}..."
        raise SchemaError(f"unknown field {shown(unknown[0])}{inside}. Known fields: {known}")
    if missing := sorted(_required(kind) - set(value)):
        raise SchemaError(f"field {missing[0]!r}{inside} is missing")
    return {key: check(hints[key], item, _dotted(name, key)) for key, item in value.items()}


def _dotted(name: str, key: str) -> str:
    """The dotted name of a field, always on one line."""
    key = key if key.isprintable() and len(key) <= 100 else shown(key)
    return f"{name}.{key}" if name else key


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
    """Check with the first option that allows the value.

    If exactly one option has the value's type, its error is raised.
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
    raise SchemaError(f"{name or _WHOLE} must be {describe(hint)}; got {shown(value)}")


def _outer(hint: Any, value: Any) -> bool:
    """Whether a value has an annotation's outermost type, so that only its elements are wrong."""
    bare = hint
    while typing.get_origin(bare) is Annotated:
        bare = typing.get_args(bare)[0]
    if has_fields(bare):
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
            raise SchemaError(f"{name or _WHOLE} must be a group of fields; got {shown(value)}")
        return {key: check(arguments[1], item, _dotted(name, key)) for key, item in value.items()}
    if not isinstance(value, list | tuple):
        raise SchemaError(f"{name or _WHOLE} must be a list; got {shown(value)}")
    if kind is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise SchemaError(f"{name} must have {len(arguments)} entries; got {len(value)}")
        hints = arguments
    else:
        hints = (arguments[0],) * len(value)
    pairs = enumerate(zip(hints, value, strict=True))
    return kind(check(hint, item, f"{name}[{i}]") for i, (hint, item) in pairs)


def rules_of(hint: Any) -> tuple[Any, ...]:
    """The rules of an annotation and of all its options."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return arguments[1:]
    if origin in (typing.Union, types.UnionType):
        return tuple(rule for option in arguments for rule in rules_of(option))
    return ()
