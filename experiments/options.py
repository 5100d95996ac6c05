"""Command-line options from declared fields: their help, ranges and parsing.

Help texts and ranges come from the field (`farl_jax.schema`). An error names the option.
`parse_text` reads a sweep's values by the same rule.
"""

import ast
import contextlib
import functools
import inspect
import io
import itertools
import re
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any

import tyro
from tyro import constructors

from experiments.errors import UserError
from farl_jax.schema import Checked, Range, check, describe, hints_of, rules_of

_READERS: dict[Any, Callable[[str], Any]] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
}
_NAMELESS = "it"
"""Name of the value in errors. tyro puts the option's name before them."""
_registry = constructors.ConstructorRegistry()


def parse(kind: type, program: str, words: Sequence[str], default: Any = None) -> Any:
    """Return dataclass `kind` from the words of a command line, or None after `--help`.

    Raises:
        UserError: a word is unknown, or a field does not allow a value.
    """
    if any(not word or re.fullmatch("--[^=]*=", word) for word in words):
        # `--out "$UNSET"` gives one; as a path it would be the current folder
        raise UserError(
            f"an option has an empty value; give one, or leave it out; see {program} --help"
        )
    text = io.StringIO()
    try:
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            return tyro.cli(kind, prog=program, args=words, default=default, registry=_registry)
    except SystemExit as stop:
        if stop.code == 0:
            print(text.getvalue())
            return None
        raise UserError(f"{_essence(text.getvalue())}; see {program} --help") from None


def parse_text(hint: Any, text: str, name: str) -> Any:
    """Return the value of `text` for a field with this annotation; `none` is None.

    Raises:
        SchemaError: the annotation does not allow it. The message begins with `name`.
    """
    kinds = _kinds(hint)
    if text.lower() == "none" and types.NoneType in kinds:
        return None
    value: Any = text
    for kind in kinds:
        with contextlib.suppress(KeyError, ValueError):
            value = _READERS[kind](text)
            break
    return check(hint, value, name)


@functools.cache
def field_docs(kind: type) -> dict[str, str]:
    """Field name -> the docstring below the field of a dataclass, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
    docs = {}
    for own, after in itertools.pairwise(body):
        text = after.value if isinstance(after, ast.Expr) else None
        if isinstance(own, ast.AnnAssign) and isinstance(text, ast.Constant):
            docs[own.target.id] = " ".join(text.value.split())
    inherited = [field_docs(base) for base in kind.__bases__ if issubclass(base, Checked)]
    return {n: t for found in (*inherited, docs) for n, t in found.items()} if inherited else docs


@_registry.struct_rule
def _fields_rule(info: constructors.StructTypeInfo) -> constructors.StructConstructorSpec | None:
    """Options of a checked dataclass. Each number knows its range."""
    if not (isinstance(info.type, type) and issubclass(info.type, Checked)):
        return None
    docs = field_docs(info.type)
    options = []
    for field in fields(info.type):
        hint, default = (
            hints_of(info.type)[field.name],
            getattr(info.default, field.name, field.default),
        )
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        default = tyro.MISSING if default is MISSING else default
        kind = Annotated[hint, _word(hint)] if _is_number(hint) else hint
        options.append(
            constructors.StructFieldSpec(field.name, kind, default, docs.get(field.name, ""))
        )
    return constructors.StructConstructorSpec(info.type, tuple(options))


def _word(hint: Any) -> constructors.PrimitiveConstructorSpec:
    """Parser of one option's words into a number or several."""
    several = _element(hint)
    one = hint if several is None else several

    def read(words: list[str]) -> Any:
        values = [parse_text(one, word, _NAMELESS) for word in words]
        return values[0] if several is None else check(hint, tuple(values), _NAMELESS)

    def write(value: Any) -> list[str]:
        values = (value,) if several is None else value
        return ["none" if v is None else str(v) for v in values]

    return constructors.PrimitiveConstructorSpec(
        nargs=1 if several is None else "*",
        metavar=allowed(hint),
        instance_from_str=read,
        is_instance=lambda value: True,
        str_from_instance=write,
    )


_METAVARS = {int: "INT", float: "FLOAT", types.NoneType: "none"}


def allowed(hint: Any) -> str:
    """What an option's value may be, in short: `INT in [1, inf)`, or the choices of a Literal."""
    several = _element(hint)
    if several is not None:
        return f"[{allowed(several)} ...]"
    if not _is_number(hint):
        return describe(hint)
    ranges = " ".join(f"in {rule}" for rule in rules_of(hint) if isinstance(rule, Range))
    return f"{'|'.join(_METAVARS[kind] for kind in _kinds(hint))} {ranges}".strip()


def _is_number(hint: Any) -> bool:
    """Whether a field holds a number, a number or none, or a tuple of numbers."""
    one = _element(hint)
    return set(_kinds(hint if one is None else one)) <= set(_METAVARS)


def _element(hint: Any) -> Any:
    """The annotation of a tuple's elements; None if it is no tuple."""
    bare = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    return typing.get_args(bare)[0] if typing.get_origin(bare) is tuple else None


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The plain types that an annotation allows."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _kinds(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return tuple(kind for option in arguments for kind in _kinds(option))
    return (hint,)


def _essence(box: str) -> str:
    """The message inside tyro's box, on one line."""
    parts = re.split(r"^[\s│|]*[-─]{8,}.*$", box, flags=re.MULTILINE)
    line = " ".join(re.sub(r"[│╭╮╰╯─]", " ", parts[1 if len(parts) > 1 else 0]).split())
    return re.sub(rf"^Error parsing (\S+): {_NAMELESS} ", r"\1 ", line)
