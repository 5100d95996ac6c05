"""Two hundred command lines that nobody meant: no traceback, one line, exit code 2."""

import random

import pytest

from experiments.cli import COMMANDS, _parse
from experiments.errors import UserError
from farl_jax.schema import SchemaError
from tests.experiments import fuzz_commands


@pytest.mark.timeout(280)
def test_no_random_command_line_ends_in_a_traceback():
    found = list(fuzz_commands.faults(seed=0, lines=200, seconds=240.0))
    assert not found, found[0]


def test_the_fuzzer_sees_what_is_wrong(monkeypatch):
    def broken(words):
        raise KeyError("a fault of ours")

    assert fuzz_commands.fault_of(["no_such_command"]) is None
    monkeypatch.setattr(fuzz_commands, "main", lambda words: 3)
    assert "exit code 3" in fuzz_commands.fault_of(["run"])
    monkeypatch.setattr(fuzz_commands, "main", broken)
    assert "KeyError" in fuzz_commands.fault_of(["run"])


def test_command_lines_come_from_their_seed():
    lines = [list(fuzz_commands.command_lines(seed, 40)) for seed in (1, 1, 2)]
    assert lines[0] == lines[1] != lines[2]
    assert {line[0] for line in lines[0]} >= {"run", "report", "bench"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_s_lines_have_all_that_it_requires(name):
    """So that they reach the command itself, and not only the parser."""
    rng = random.Random(0)
    lines = [fuzz_commands.words_of(rng, name) for _ in range(40)]
    bare = [line for line in lines if not {"--help", "--nonsense", "-x"} & set(line)]
    kind, given = COMMANDS[name][0], len(name.split())
    assert all(tuple(line[:given]) == tuple(name.split()) for line in lines)
    assert any(_parses(kind, name, line[given:]) for line in bare)


def _parses(kind, name, words):
    try:
        return _parse(kind, name, words) is not None
    except (UserError, SchemaError):
        return False
