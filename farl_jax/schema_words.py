"""Annotations and values in words, for the errors and help texts of `schema`."""

import dataclasses
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

_MAX_SHOWN = 60
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


def describe(hint: Any) -> str:
    """An annotation in words, for example "a whole number or none"."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return describe(arguments[0])
    if origin is typing.Literal:
        return _either([str(a) for a in arguments])
    if origin in (typing.Union, types.UnionType):
        return _either([describe(a) for a in arguments])
    return _NAMES.get(origin or hint) or (
        "a group of fields" if has_fields(hint) else getattr(hint, "__name__", str(hint))
    )


def shown(value: Any) -> str:
    """A value for an error message: short, and as in JSON."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    parts = isinstance(value, list | tuple | dict)
    text = reprlib.repr(value) if parts else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."


def as_number(value: Any) -> str:
    """A bound as text: 4294967296, not 4294967296.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def has_fields(hint: Any) -> bool:
    """Whether an annotation is a TypedDict or a dataclass."""
    return typing.is_typeddict(hint) or dataclasses.is_dataclass(hint)


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
