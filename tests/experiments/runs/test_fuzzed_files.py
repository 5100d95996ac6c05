"""Every file that a run, a sweep or a report reads, spoiled in every way: one line, or left out.

A field takes a value of another type, of another size, or goes; a whole file is no JSON, another
file, or no file. No reader may end in anything but the error that the command line turns into a
line, and a value of a wrong type must be found, whoever reads it.
"""

import itertools
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from experiments import reproduce
from experiments.cli import main
from experiments.phases.training import _seconds_until
from experiments.process import machine
from experiments.report import write as report
from experiments.studies import compare
from farl_jax.schema import SchemaError
from tests.experiments.finished_runs import (
    COMMIT,
    result,
    sweep_row,
    write,
    write_diagnosis,
    write_horizon,
    write_run,
)

TASK = "bounded_push"
GONE = object()
LONG = "<an integer of 6,000 digits>"
ENVIRONMENT = {
    "command": ["farl", "run"],
    "packages": {"jax": "0.10.2", "warp-lang": None},
    "python": "3.11.7",
    "platform": "Linux",
    "cpu_count": 2,
    "device": {"platform": "cpu", "kind": "cpu", "count": 1},
    "git": {"commit": COMMIT, "dirty": False},
}
WRONG = [
    *(None, [], {}, "x", True, 3, 0, -1, 1.5, 10**30, 1e308, float("nan"), float("inf"), LONG),
    *([[1]], {"x": {}}, "\ud800", "x" * 500, GONE),
]
WHOLE = {
    "null": b"null",
    "a number": b"3",
    "a list": b"[]",
    "a text": b'"text"',
    "not a number": b"NaN",
    "nothing": b"",
    "a blank": b" \n",
    "brackets": b"[" * 100_000,
    "nested": b"[" * 100_000 + b"]" * 100_000,
    "not UTF-8": b'{"task": "\xff"}',
    "binary": random.Random(0).randbytes(5000),
    "other fields": b'{"answer": 42}',
    "rubbish": b'{"seed": 0,, }',
}


def finished(root):
    """Two seeds of two methods, and a sweep."""
    counts = {"control_episodes": 5, "control_failure_episodes": 1}
    counts |= {"offline_steps": 900, "offline_episodes": 9, "offline_failure_episodes": 2}
    for seed, (method, failures) in itertools.product((0, 1), (("uni_o4", 40), ("farl", 10))):
        more = counts | {"git": ENVIRONMENT["git"], "diverged": 0, "cost_rate": 0.1}
        row = result(TASK, method, seed, failures + seed, 50.0 + seed, **more)
        env = ENVIRONMENT | {"resumed": [ENVIRONMENT]}
        write_run(root / "runs" / f"seed{seed}", row, env=env)
    write_diagnosis(root / "runs/seed0/farl")
    write_horizon(root / "runs/seed0/farl")
    rows = [sweep_row({"safety.horizon": h}, result(TASK, "farl", 0, h, 50.0)) for h in (3, 6)]
    failed = {"cell": "safety.horizon=9/seed0", "method": "farl", "seed": 0, "error": "no memory"}
    lines = lambda *rows: "".join(json.dumps(row) + "\n" for row in rows)
    write(root / "sweep/sweep.jsonl", lines(*rows))
    write(root / "sweep/failed.jsonl", lines(failed | {"safety.horizon": 9, "traceback": "..."}))
    settings = reproduce.settings_of(TASK, "quick")
    write(root / "stored/settings.json", {"a": settings})
    main_row = lambda row: {k: row[k] for k in reproduce.FIELDS} | {"settings": "a", "git": COMMIT}
    rows = [result(TASK, m, s, 9, 50.0, **counts) for m in ("uni_o4", "farl") for s in (0, 1)]
    write(root / "stored/main.jsonl", lines(*map(main_row, rows)))
    return root


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder as it was left."""
    return finished(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path, monkeypatch):
    """A copy to spoil; figures are not drawn, and nobody is asked for git's state."""
    stub = lambda path, *_, **__: path.write_bytes(b"") or path
    monkeypatch.setattr(compare, "comparison_figure", stub)
    monkeypatch.setattr(report, "horizon_figure", stub)
    monkeypatch.setattr(report, "diagnosis_figure", stub)
    monkeypatch.setattr(report.style, "save", lambda _, out, name: stub(out / f"{name}.png"))
    for place, names in (
        (report.paper_figures, ("failures_figure", "returns_figure")),
        (report.figures, ("pareto_figure", "learning_figure", "causes_figure")),
    ):
        for name in names:
            monkeypatch.setattr(place, name, lambda *_: None)
    monkeypatch.setattr(report.figures, "sweep_figure", lambda *_: None)
    monkeypatch.setattr(machine, "describe_environment", lambda: ENVIRONMENT)
    return shutil.copytree(whole, tmp_path / "copy")


def places(tree, here=()):
    """Where values stand in a JSON tree: its fields, and the first entry of a list."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree[:1])
    for key, value in pairs:
        yield (*here, key)
        if isinstance(value, dict | list):
            yield from places(value, (*here, key))


def changed(tree, place, value):
    """(The tree with another value there, the value that was there)."""
    tree = json.loads(json.dumps(tree))
    parent = tree
    for key in place[:-1]:
        parent = parent[key]
    was = parent[place[-1]]
    if value is GONE:
        del parent[place[-1]]
    else:
        parent[place[-1]] = value
    return tree, was


def text_of(tree):
    return json.dumps(tree).replace(json.dumps(LONG), "9" * 6000)


def kind(value):
    numbers = type(value) in (int, float)
    return "number" if numbers or value is LONG else type(value).__name__


def is_wrong(was, value):
    """Whether no declaration can allow it: another type, or no number at all."""
    if value is LONG or value in ("\ud800", float("inf")) or value != value:
        return True
    return None not in (was, value) and value is not GONE and kind(was) != kind(value)


def field_cases(path, number, seed=0):
    """(name, content, whether it must be found): a sample of fields and values of a file."""
    text, rng = path.read_text(), random.Random(f"{path.name} {seed}")
    tables = path.suffix == ".jsonl"
    trees = [json.loads(line) for line in text.splitlines()] if tables else [json.loads(text)]
    every = [(row, place) for row, tree in enumerate(trees) for place in places(tree)]
    for (row, place), value in rng.sample(list(itertools.product(every, WRONG)), number):
        tree, was = changed(trees[row], place, value)
        lines = [text_of(other) for other in trees]
        lines[row] = text_of(tree)
        yield (
            f"{path.name} {row} {place} {value!r:.30}",
            "\n".join(lines) + "\n",
            is_wrong(was, value),
        )


def spoil(path, content):
    """Put something else in a file's place."""
    path.unlink() if path.is_file() or path.is_fifo() else path.rmdir() if path.exists() else None
    if callable(content):
        content(path)
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 30)


def whole_cases(path):
    """(name, content, True): a file in whose place is something else."""
    other = {"a folder": Path.mkdir, "a pipe": os.mkfifo, "a sparse gigabyte": sparse}
    for name, content in (WHOLE | other).items():
        yield f"{path.name}: {name}", content, True


def cases(path, number):
    """All of a file's whole cases, and a sample of its fields'; the file is whole again after."""
    before = path.read_bytes()
    for case in (*whole_cases(path), *field_cases(path, number)):
        spoil(path, case[1])
        yield case[0], case[2]
    spoil(path, before)


def run(capsys, *words):
    """(exit code, lines on stderr) of a command; an exception of another kind fails the test."""
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err.strip().splitlines()


def written(seed):
    """When its files were written; env.json, in which whoever opens the run stands, apart."""
    files = (p for p in seed.iterdir() if p.is_file() and p.name != "env.json")
    return {path.name: path.stat().st_mtime_ns for path in files}


RUN_FILES = {
    "runs/seed0/farl/result.json": 120,
    "runs/seed0/env.json": 60,
    "runs/seed0/config.json": 120,
    "runs/seed0/farl/metrics.jsonl": 60,
}


@pytest.mark.parametrize("name", RUN_FILES)
def test_evaluate_refuses_what_is_spoiled_and_writes_nothing(folder, capsys, name):
    seed, path = folder / "runs/seed0", folder / name
    assert run(capsys, "evaluate", seed)[0] == 0
    refused = 0
    for told, must in cases(path, RUN_FILES[name]):
        before = written(seed)
        code, lines = run(capsys, "evaluate", seed)
        assert code in ((2,) if must else (0, 2)), told
        if code == 2:
            refused += 1
            assert len(lines) == 1 and lines[0].startswith("farl: ") and path.name in lines[0], told
            assert written(seed) == before, told
    assert refused > RUN_FILES[name] // 2


def test_a_spoiled_result_is_never_found_again(folder, capsys):
    seed, path = folder / "runs/seed0", folder / "runs/seed0/farl/result.json"
    words = "online", seed, "--method", "farl", "--resume"
    assert run(capsys, *words)[0] == 0
    for told, must in cases(path, 60):
        code, lines = run(capsys, *words)
        assert code in ((2,) if must else (0, 2)), told
        assert code == 0 or (len(lines) == 1 and "result.json" in lines[0]), told
    other = folder / "runs/seed1/farl/result.json"
    spoil(path, other.read_bytes())
    code, (line,) = run(capsys, *words)
    assert code == 2 and "seed is 0 in config.json and 1 in the result" in line


def test_a_spoiled_row_ends_resuming_in_a_line(folder):
    path = folder / "runs/seed0/farl/metrics.jsonl"
    assert _seconds_until(path.parent, 5_000) == 30.0
    for told, must in cases(path, 100):
        empty = told.endswith((": nothing", ": a blank"))  # nothing was trained yet
        try:
            seconds = _seconds_until(path.parent, 10_000)
        except SchemaError as error:
            assert "metrics.jsonl" in str(error), told
        else:
            assert seconds >= 0.0 and (empty or not must), told


REPORT_FILES = RUN_FILES | {
    "runs/seed0/farl/diagnosis.json": 40,
    "runs/seed0/farl/horizon.json": 40,
    "sweep/sweep.jsonl": 40,
    "sweep/failed.jsonl": 30,
}


@pytest.mark.parametrize("name", REPORT_FILES)
def test_a_report_leaves_out_what_is_spoiled_by_name(folder, capsys, name):
    words = "report", folder / "runs", folder / "sweep", "-o", folder / "out"
    code, sound = run(capsys, *words)
    assert code == 0 and len(sound) == 1  # a cell that failed
    for told, must in cases(folder / name, min(REPORT_FILES[name], 25)):
        code, lines = run(capsys, *words)
        assert code == 0 and all(line.startswith("farl: warning: ") for line in lines), told
        new = [line for line in lines if line not in sound]
        empty = told.endswith((": nothing", ": a blank"))  # a sweep of which nothing is done yet
        unread = told.endswith(("failed.jsonl: a folder", "horizon.json: a folder"))
        unread |= "config.json 0 ('config'" in told  # settings of any version are compared
        assert new or not must or unread or (empty and "sweep/" in name), told
        known = "seed0" if "runs" in name else "/sweep", "other settings"
        assert not new or any(word in line for line in new for word in known), told


@pytest.mark.parametrize("name", ["main.jsonl", "settings.json"])
def test_stored_rows_that_are_spoiled_are_refused(folder, capsys, name):
    words = "reproduce", "--stored", "--preset", "quick", "--out", folder / "stored"
    assert run(capsys, *words)[0] == 0
    for told, must in cases(folder / "stored" / name, 12):
        code, lines = run(capsys, *words)
        assert code in ((2,) if must else (0, 2)), told
        assert code == 0 or (len(lines) == 1 and "stored" in lines[0]), told


def test_stored_rows_of_no_steps_and_links_that_lead_out(folder, capsys, tmp_path):
    words = "reproduce", "--stored", "--preset", "quick", "--out", folder / "stored"
    path = folder / "stored" / "main.jsonl"
    rows = [json.loads(line) | {"online_steps": 0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert run(capsys, *words) == (0, [])
    for name in ("main.jsonl", "settings.json"):
        outside = (folder / "stored" / name).rename(tmp_path / name)
        (folder / "stored" / name).symlink_to(outside)
        code, lines = run(capsys, *words)
        assert code == 2 and len(lines) == 1 and f"{name}: is a link" in lines[0]
        outside.rename(folder / "stored" / name)
