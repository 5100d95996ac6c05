"""Console output ends no work: readers that go away, full devices, closed descriptors, ascii."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.process.console import one_line, plain_console
from experiments.runs.presets import RunSettings
from experiments.runs.run import Run
from tests.experiments.finished_runs import result, write_run

ROOT = Path(__file__).parents[3]
TALK = """
import os, sys
from pathlib import Path
from experiments.process import streams
streams.steady()
with open("work", "w") as file:
    assert file.fileno() > 2
    for i in range(20_000):
        print("a line that nobody needs", i)
        print("r\\udcff \\u2501", file=sys.stdout if i % 100 else sys.stderr, flush=i % 50 == 0)
    file.write("done")
sys.exit(7)
"""
COMMAND = "from experiments.entry import entry; entry()"


def start(code, cwd, *words, closed=(), **options):
    variables = {"PYTHONPATH": str(ROOT)} | options.pop("env", {})
    shell = ["sh", "-c", " ".join(['exec "$@"', *(f"{one}>&-" for one in closed)]), "sh"]
    command = [*shell, sys.executable, "-c", code, *words]
    return subprocess.Popen(command, cwd=cwd, env=os.environ | variables, **options)


@pytest.mark.parametrize("closed", [(1,), (2,), (0, 1, 2)], ids=str)
def test_closed_descriptors(tmp_path, closed):
    assert start(TALK, tmp_path, closed=closed).wait(60) == 7
    assert (tmp_path / "work").read_text() == "done"


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_full_devices(tmp_path, encoding):
    with open("/dev/full", "w") as full:
        options = {"stdout": full, "stderr": full, "env": {"PYTHONIOENCODING": encoding}}
        assert start(TALK, tmp_path, **options).wait(60) == 7
    assert (tmp_path / "work").read_text() == "done"


def test_readers_that_go_away(tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(TALK, tmp_path, **pipes) as process:
        assert process.stdout.readline() == b"a line that nobody needs 0\n"
        process.stdout.close()
        process.stderr.close()
        assert process.wait(60) == 7
    assert (tmp_path / "work").read_text() == "done"


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    code = "from experiments.process import streams; streams.steady(); print('\\u2501 r\\udcff')"
    pipe = {"stdout": subprocess.PIPE, "env": {"PYTHONIOENCODING": "ascii"}}
    with start(code, tmp_path, **pipe) as process:
        assert process.stdout.read() == b"\\u2501 r\\udcff\n"


@pytest.fixture
def run(tmp_path):
    """A finished run of both methods under a name that is markup, emoji, formula and no text."""
    folder = tmp_path / os.fsdecode(b"lab [1] [/bold] :smile: $x_{ \xff") / "seed0"
    for method in ("uni_o4", "farl"):
        extra = {"failing_steps": 3, "wall_seconds": 1.0}
        write_run(folder, result("bounded_push", method, 0, 5, 50.0, **extra))
    return folder


def test_a_command_whose_reader_goes_away_does_its_work(run, tmp_path):
    words = ["evaluate", str(run)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with start(COMMAND, tmp_path, *words, closed=(0,), **pipes) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 0
    assert (run / "comparison.png").stat().st_size > 1000


def test_names_are_printed_as_they_are(run, tmp_path):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with start(COMMAND, tmp_path, "evaluate", str(run), **pipes) as process:
        said, errors = process.communicate(timeout=60)
    shown = str(run).encode("utf-8", "backslashreplace").decode()
    assert (process.returncode, errors) == (0, "")
    assert said.splitlines()[-1] == f"figure: {shown}/comparison.png"
    with start(COMMAND, tmp_path, "offline", f"{run}x", **pipes) as process:
        assert shown in process.communicate(timeout=60)[1]


def test_lines_are_plain_and_keep_their_lead(capsys, tmp_path):
    run = Run(tmp_path, RunSettings(), False, plain_console())
    run.say("demonstrations: [bold]a[/bold] :smile: [1]", about="[red]")
    assert capsys.readouterr().out == "  [red] demonstrations: [bold]a[/bold] :smile: [1]\n"
    assert one_line(ValueError(" a\n  b ")) == "a b"


def test_a_line_holds_no_orders_for_a_terminal():
    """A name in a file from a stranger may be anything."""
    told = one_line("a\x1b[31m\n b\u202e\x9b\udcff ü")
    assert told == "a\\x1b[31m b\\u202e\\x9b\\udcff ü" and told.isprintable()
