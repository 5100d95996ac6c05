"""Every command line that README and docs show is one that the command understands."""

import pathlib
import re
import shlex

import pytest

from experiments.cli import COMMANDS, _parse
from experiments.runs.presets import parse_setting

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN = re.compile(r"`farl ([^`]+)`|^(?:[A-Z_]+=\S+ )*farl ((?:.*\\\n)*.*)$", re.MULTILINE)


def command_lines(text: str) -> list[str]:
    """What follows `farl`, in a line of code or as a line of its own; a break may be escaped."""
    found = ((one or other).replace("\\\n", " ") for one, other in SHOWN.findall(text))
    return [" ".join(re.split(r" [|#]", line)[0].split()) for line in found]


LINES = sorted({line for page in PAGES for line in command_lines(page.read_text("utf-8"))})


def test_the_reader_of_pages_finds_command_lines():
    text = (
        "a `farl demos` b\n```\nA=1 farl run --seeds 2 \\\n  --seed 1  # x\n```\nfarl tasks | cat"
    )
    assert command_lines(text) == ["demos", "run --seeds 2 --seed 1", "tasks"]
    assert len(LINES) > 40


@pytest.mark.parametrize("line", LINES)
def test_what_the_pages_show_is_understood(line):
    words = [word for word in shlex.split(line.replace("--task ...", "")) if word != "..."]
    if words in (["--help"], ["--version"], ["COMMAND", "--help"]):
        return
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
    rest = words[len(name.split()) :]
    if not rest or line.endswith("...") or " ... " in line:
        needed = {"sweep": ["-o", "OUT"], "export": ["-o", "OUT"], "report": ["runs"]}
        needed |= {"bench compare": ["REV"], "bench deploy": ["POLICY"]}
        rest = [*rest, *needed.get(name, [])]
        rest += ["RUN"] if "run" in COMMANDS[name][0].__dataclass_fields__ else []
    rest = ["1" if word == "N" else word for word in rest]
    arguments = _parse(COMMANDS[name][0], name, rest)
    for setting in getattr(arguments, "set", ()):
        field, _, values = setting.partition("=")
        for value in values.split(","):
            parse_setting(field, value)
    assert arguments is not None or "--help" in rest
