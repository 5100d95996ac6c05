"""The reference pages of commands, settings, methods and tasks, written from the code.

`python -m docs.tools.reference` writes them; a test compares them with the code.
"""

import dataclasses
import inspect
import pathlib
import sys
import textwrap
import typing
from typing import Any

import tyro

from envs_mjx import SUITES, TASKS
from experiments.commands import COMMANDS
from experiments.options import allowed, field_docs
from experiments.runs.presets import PRESETS, text_of
from farl_jax.config import FarlConfig
from farl_jax.methods import METHODS, Method
from farl_jax.schema import hints_of

FOLDER = pathlib.Path(__file__).parents[1] / "reference"
_NOTES = (
    "- `ppo_lagrangian`, `p3o` and `cpo` have no gate. The failure-episode rate has a limit",
    "  (`--constraint.limit`). V_C is fitted to the demonstrations first.",
    "- `simple_critic`: Recovery RL's risk critic is the gate, in the world model's place.",
    "- `sooper`: the gate asks whether recovery could still prevent a failure afterwards.",
    "- `mppi` plans a recovery for those environments only that triggered.",
    "- `no_recovery`: the gate stops the hand instead.",
)
_MADE = "<!-- Written by `python -m docs.tools.reference`. Do not edit. -->"


def pages() -> dict[str, str]:
    """File name in docs/reference/ -> its text."""
    return {
        "commands.md": commands_page(),
        "settings.md": settings_page(),
        "methods.md": methods_page(),
        "tasks.md": tasks_page(),
    }


def commands_page() -> str:
    """Every command and its options."""
    lines = [_MADE, "", "# Commands", ""]
    lines += ["`farl COMMAND --help` prints the same. Bad input is one line and exit code 2."]
    lines += ["`farl --version` prints the versions of all that decides numbers.", ""]
    rows = [(f"[`farl {name}`](#farl-{_anchor(name)})", text) for name, (*_, text) in _sorted()]
    lines += _table(("command", "it makes"), rows)
    for name, (kind, _, _) in _sorted():
        lines += ["", f"## farl {name}", "", *_about(kind), "", *_options(kind)]
    return _text(lines)


def settings_page() -> str:
    """Every number of the method, and how presets and tasks change them."""
    lines = [_MADE, "", "# Settings", ""]
    lines += [
        "Each setting is an option of `farl run`, `farl demos` and `farl demos import`.",
        "A sweep sets one by `--set group.name=value`. The default is that of the preset `paper`.",
        "A run's `config.json` holds all of them. For example:",
        "",
        "```bash",
        "farl run --safety.horizon 3 --safety.hold 1 --online.treatment executed",
        "```",
    ]
    for group in dataclasses.fields(FarlConfig):
        kind, default = type(getattr(FarlConfig(), group.name)), getattr(FarlConfig(), group.name)
        docs = field_docs(kind)
        rows = [
            (
                f"`--{_dashed(group.name)}.{_dashed(name)}`",
                allowed(hint),
                f"`{text_of(getattr(default, name))}`",
                docs.get(name, ""),
            )
            for name, hint in hints_of(kind).items()
        ]
        lines += ["", f"## {group.name}", "", *_about(kind), ""]
        lines += _table(("option", "values", "default", "meaning"), rows)
    lines += ["", "## Presets", "", "Changes from the defaults, the same for every task.", ""]
    rows = [
        (f"`{name}`", f"`{setting}`", f"`{value}`")
        for name, preset in PRESETS.items()
        for setting, value in _changes(preset)
    ]
    lines += _table(("preset", "setting", "value"), rows)
    return _text(lines)


def methods_page() -> str:
    """The compared methods, by their parts."""
    lines = [_MADE, "", "# Methods", ""]
    lines += [
        "All methods start from the same offline checkpoint and run in the same online loop.",
        "A method is three choices (`farl_jax/methods.py`).",
        "",
    ]
    rows = [
        (f"`{name}`", method.title, method.gate, _recovery(method), method.constraint)
        for name, method in METHODS.items()
    ]
    lines += _table(("`--method`", "title", "gate", "recovery", "constraint"), rows)
    docs = field_docs(Method)
    lines += [""]
    for name in ("gate", "recovery", "constraint"):
        lines += textwrap.wrap(f"- *{name}*: {docs[name]}", 110, subsequent_indent="  ")
    lines += ["", *_NOTES, ""]
    lines += ["[Results](../results.md) compares them; [Add a method](../how-to/add-method.md)"]
    lines += ["says what to write for another one."]
    return _text(lines)


def tasks_page() -> str:
    """The tasks, by their class attributes."""
    lines = [_MADE, "", "# Tasks", ""]
    for suite, names in SUITES.items():
        rows = [
            (
                f"`{name}`",
                _summary(TASKS[name]),
                str(TASKS[name].episode_limit),
                f"{TASKS[name].danger_margin:g}, {TASKS[name].safe_margin:g}",
                f"{TASKS[name].random_return:g}, {TASKS[name].expert_return:g}",
            )
            for name in names
        ]
        lines += [f"## {suite}", ""]
        head = ("task", "", "steps", "danger, safe margin (m)", "return: random, expert")
        lines += [*_table(head, rows), ""]
    lines += [
        "Recovery demonstrations begin at the danger margin and end at the safe margin.",
        "[FailureBench](../tasks.md) and [the Franka's tasks](../franka.md) say what was measured.",
    ]
    return _text(lines)


def _options(kind: type) -> list[str]:
    rows = list(_option_rows(kind))
    return _table(("option", "values", "default", "meaning"), rows)


def _option_rows(kind: type) -> typing.Iterator[tuple[str, ...]]:
    docs, inner = field_docs(kind), None
    for field in dataclasses.fields(kind):
        hint = hints_of(kind)[field.name]
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if isinstance(default, FarlConfig):
            yield ("`--GROUP.NAME`", "", "", "Any of [the settings](settings.md).")
        elif dataclasses.is_dataclass(default):
            inner = type(default)
        else:
            yield _option(field.name, hint, default, docs.get(field.name, ""))
    if inner is not None:
        yield from _option_rows(inner)


def _option(name: str, hint: Any, default: Any, doc: str) -> tuple[str, ...]:
    required = default is dataclasses.MISSING
    shown = "required" if required else _value(default)
    if tyro.conf.Positional in _rules(hint) or _is_positional(hint):
        return f"`{name.upper()}`", allowed(hint), shown, doc
    if hint is bool:
        option = f"--{_dashed(name)}" if not default else f"--no-{_dashed(name)}"
        return f"`{option}`", "", "off" if not default else "on", doc
    short = " `-o`" if "-o" in str(_rules(hint)) else ""
    return f"`--{_dashed(name)}`{short}", allowed(hint), shown, doc


def _rules(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__metadata__", ())


def _is_positional(hint: Any) -> bool:
    return any("ositional" in str(rule) for rule in _rules(hint))


def _value(default: Any) -> str:
    if isinstance(default, tuple):
        return f"`{' '.join(map(str, default))}`" if default else ""
    return "" if default is None else f"`{default}`"


def _changes(preset: FarlConfig) -> typing.Iterator[tuple[str, str]]:
    for group in dataclasses.fields(FarlConfig):
        own, plain = getattr(preset, group.name), getattr(FarlConfig(), group.name)
        for field in dataclasses.fields(own):
            value = getattr(own, field.name)
            if value != getattr(plain, field.name):
                yield f"{group.name}.{field.name}", text_of(value)


def _recovery(method: Method) -> str:
    return method.recovery if method.gated else "none"


def _summary(kind: type) -> str:
    """First sentences of the module of a task."""
    about = inspect.getdoc(sys.modules[kind.__module__]) or ""
    return about.split("\n\n")[0].replace("\n", " ")


def _about(kind: type) -> list[str]:
    return (inspect.getdoc(kind) or "").split("\n\nRaises")[0].splitlines()


def _sorted() -> list[tuple[str, Any]]:
    return list(COMMANDS.items())


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in row] for row in rows]
    lines = [f"| {' | '.join(row)} |" for row in (head, *escaped)]
    return [lines[0], f"|{'---|' * len(head)}", *lines[1:]]


def _text(lines: list[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write the pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
