"""Random command lines, made of the real options and of what people mistype or paste.

`python -m tests.experiments.fuzz_commands --lines 200 --seed 0 --seconds 600` prints each line that
does not end as promised: exit code 0, 2 or (sweep) 1, at most one error line on stderr, no
traceback. The command lines of what would train for long end with an output that cannot be written.
"""

import argparse
import contextlib
import io
import os
import pathlib
import random
import shlex
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Any

from experiments.cli import COMMANDS, main
from farl_jax.config import FarlConfig
from farl_jax.schema import hints_of
from tests.experiments.finished_runs import result, write_run

SECONDS_A_LINE = 20
NASTY = (
    *("", " ", "-", "--", "-1", "0", "1", "2.5", "nan", "inf", "-inf", "1e400", "1e-400", "0x10"),
    *("9" * 30, "none", "None", "null", "true", "[]", "{}", "%s", "$HOME", "~", "*", "[bold]"),
    *("\N{COLLISION SYMBOL}", "a b", "a\nb", "a" * 5000, "../x:Y", "os:path", ":", "x:", ":Y"),
    *("json:JSONDecoder", "bounded_push", "bounded_pusch", "smoke", "huge", "farl", "mppi", "cpo"),
    *("/", ".", "/dev/null", "/dev/full", "/proc/1/mem", "nowhere/at/all", "safety.horizon=3"),
    *("safety.horizon=", "=3", "safety.horizon=3,3", "world_model.train_horizon=1", "slurm"),
)
ENDLESS = {
    "run": ["--out", "a_file"],
    "demos": ["--out", "a_file"],
    "demos import": ["--out", "a_file"],
    "demos export": ["--out", "a_file"],
    "export": ["--out", "a_policy"],  # it must be given
    "sweep": ["-o", "a_file"],
    "reproduce": ["--runs", "a_file", "--out", "a_file"],
    "bench": ["--out", "a_folder"],
    "bench train": ["--out", "a_folder"],
    "bench compare": ["--out", "a_folder"],
    "bench brax": ["--out", "a_folder"],
    "bench gpu": ["--out", "a_file"],
    "bench roofline": ["--out", "a_folder"],
    "tasks": ["--out", "a_folder", "--sheet", "a_folder"],
}
"""Words that end each line of a command, mostly to stop one that could work for minutes."""


class TooLong(BaseException):
    """A command line worked on: it was a good one."""


def words_of(rng: random.Random, name: str) -> list[str]:
    """One random command line of a command."""
    kind = COMMANDS[name][0]
    known = [f"--{field.replace('_', '-')}" for field in hints_of(kind)]
    if "config" in hints_of(kind):
        known += [
            f"--{group}.{field}".replace("_", "-")
            for group, own in hints_of(FarlConfig).items()
            for field in hints_of(own)
        ]
    words = []
    if any("Positional" in str(hint) for hint in hints_of(kind).values()):
        words.append(rng.choice(["a_run/seed0", "a_run", "nowhere", "a_file", *NASTY[:12]]))
    for _ in range(rng.randint(0, 3)):
        option = rng.choice([*known, "--help", "--nonsense", "-x"])
        words += rng.choice(
            [
                [option, rng.choice(NASTY)],
                [f"{option}={rng.choice(NASTY)}"],
                [option],
                [option.replace("-", "_"), rng.choice(NASTY)],
                [option, rng.choice(NASTY), option, rng.choice(NASTY)],
            ]
        )
    return [*name.split(), *words, *ENDLESS.get(name, [])]


def command_lines(seed: int, lines: int) -> Iterator[list[str]]:
    """`lines` command lines, each command in turn, now and then one that does not exist."""
    rng = random.Random(seed)
    for number in range(lines):
        if number % 20 == 19:
            yield [rng.choice(NASTY), *rng.choices(NASTY, k=2)]
        else:
            yield words_of(rng, list(COMMANDS)[number % len(COMMANDS)])


def scene(folder: pathlib.Path) -> None:
    """A finished run, a file and a folder to name."""
    for method, failures in (("uni_o4", 20), ("farl", 5)):
        write_run(folder / "a_run/seed0", result("bounded_push", method, 0, failures, 80.0))
    (folder / "a_file").write_text("a file")
    (folder / "a_folder").mkdir()


def fault_of(words: list[str]) -> str | None:
    """What is wrong with how a command line ends; None where it ends as promised."""
    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS_A_LINE)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
    except TooLong:
        return None
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    if TooLong.__name__ in err.getvalue():
        return None  # the alarm came inside a destructor, where Python only prints it
    lines = [line for line in err.getvalue().splitlines() if not line.startswith("farl: warning: ")]
    if code not in (0, 1, 2) or (code == 1 and words[0] != "sweep"):
        return f"exit code {code}: {err.getvalue()}"
    if "Traceback" in err.getvalue() + out.getvalue():
        return f"a traceback: {err.getvalue()}{out.getvalue()}"
    if code == 2 and not (len(lines) == 1 and lines[0].startswith("farl: ")):
        return f"{len(lines)} lines: {err.getvalue()[:2000]}"
    return None


def faults(seed: int, lines: int, seconds: float) -> Iterator[tuple[list[str], str]]:
    """The command lines that do not end as promised, and how; stops after `seconds`."""
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        scene(pathlib.Path(folder))
        before = os.environ.copy()
        for words in command_lines(seed, lines):
            if time.monotonic() > end:
                print("time is up", file=sys.stderr)
                return
            fault = fault_of(words)
            os.environ.clear()
            os.environ.update(before)
            if fault is not None:
                yield words, fault


def _too_long(*_: Any) -> None:
    raise TooLong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0)
    given = parser.parse_args()
    found = 0
    for words, fault in faults(given.seed, given.lines, given.seconds):
        found += 1
        print(f"farl {shlex.join(words)[:300]}\n  {fault.strip()[-1500:]}\n")
    print(f"{found} of {given.lines} command lines did not end as promised")
    sys.exit(1 if found else 0)
