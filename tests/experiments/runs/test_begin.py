"""Finished and begun work is refused, gone on with, or put aside: never replaced in silence."""

import io
import json
import os
from pathlib import Path

import pytest
from rich.console import Console

from experiments.cli import main
from experiments.errors import UserError
from experiments.process import signals
from experiments.report.files import find
from experiments.runs import begin as phases
from experiments.runs.aside import MOVING, REPLACED, put_aside, put_back
from experiments.runs.begin import DEMOS, OFFLINE, begin, online, study
from experiments.runs.files import RESULT
from experiments.runs.folder import RunFolder
from experiments.runs.presets import RunSettings
from experiments.runs.run import Run
from tests.experiments.finished_runs import result, write, write_horizon, write_run

TABLE = {"failing_steps": 9, "wall_seconds": 3.0}
WORKS = {"demos": DEMOS, "offline": OFFLINE, "uni_o4": online("uni_o4")}


@pytest.fixture
def seed(tmp_path):
    """A finished run of two methods, as far as its files tell."""
    path = tmp_path / "seed0"
    for method in ("uni_o4", "farl"):
        write_run(path, result("bounded_push", method, 0, 5, 50.0, **TABLE))
    write_horizon(path / "farl")
    for name in ("demos/task.npz", "offline/0/metadata.json", "risk_critic/0/metadata.json"):
        write(path / name, name)
    for name in ("metrics.jsonl", "tb/offline/events", "comparison.json", "comparison.png"):
        write(path / name, name)
    return path


def run_of(path, resume=False):
    return Run(path, RunSettings(), resume, Console(file=io.StringIO()))


def contents(path):
    """Every file but those that opening writes: name -> bytes."""
    found = (p for p in sorted(path.rglob("*")) if p.is_file() and p.name != "env.json")
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in found}


def said(capsys, *words):
    """The one line of a refused command."""
    assert main(list(words)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    "words",
    [
        ("online", "{}", "--method", "uni_o4"),
        ("online", "{}", "--method", "farl"),
        ("offline", "{}"),
        ("sweep", "horizon", "{}"),
    ],
)
def test_finished_work_is_refused_with_the_ways_out(seed, capsys, words):
    before = contents(seed)
    line = said(capsys, *(word.format(seed) for word in words))
    assert "--overwrite" in line and ("--resume" in line) == (words[0] != "sweep")
    assert contents(seed) == before


@pytest.mark.parametrize("trace", ["metrics.jsonl", "checkpoints/1/metadata.json"])
def test_begun_work_is_refused_and_resumed_work_is_not(seed, capsys, trace):
    method = "cpo"
    write(seed / method / trace, "begun")
    assert method in said(capsys, "online", str(seed), "--method", method)
    assert begin(run_of(seed, resume=True), online(method)).resume
    (seed / "p3o").mkdir()
    write(seed / "p3o" / "film.gif", "a film of the offline policy")
    assert not begin(run_of(seed), online("p3o")).resume


def test_two_ways_at_once_are_refused(seed, tmp_path, capsys):
    for words in (("online", str(seed)), ("offline", str(seed)), ("demos", "--out", str(tmp_path))):
        assert "give only one of them" in said(capsys, *words, "--resume", "--overwrite")
    assert not (seed / REPLACED).exists()


@pytest.mark.parametrize(
    ("name", "stays"),
    [
        ("demos", {"config.json"}),
        ("offline", {"config.json", "demos"}),
        (
            "uni_o4",
            {"config.json", "demos", "offline", "risk_critic", "metrics.jsonl", "tb", "farl"},
        ),
    ],
)
def test_what_is_overwritten_is_put_aside_with_all_that_was_made_from_it(seed, name, stays):
    before = contents(seed)
    run = begin(run_of(seed, resume=True), WORKS[name], overwrite=True)
    assert not run.resume and str(seed / REPLACED / "1") in run.console.file.getvalue()
    assert {entry.name for entry in seed.iterdir()} == stays | {"env.json", REPLACED}
    after = contents(seed)
    assert {name.removeprefix(f"{REPLACED}/1/"): data for name, data in after.items()} == before
    again = begin(run, WORKS[name], overwrite=True)  # there is nothing to put aside
    assert contents(again.path) == after
    write(seed / WORKS[name].traces[0], "new")
    begin(run, WORKS[name], overwrite=True)
    assert [p.name for p in sorted((seed / REPLACED).iterdir())] == ["1", "2"]


def test_a_study_is_put_aside_alone(seed):
    begin(run_of(seed, resume=True), study("farl", "horizon"), overwrite=True)
    moved = contents(seed / REPLACED / "1")
    assert moved.keys() == {"farl/horizon.json"} and (seed / "farl" / "result.json").is_file()
    with pytest.raises(UserError, match="--overwrite"):
        write(seed / "farl" / "horizon.json", "new")
        begin(run_of(seed, resume=True), study("farl", "horizon"))


@pytest.mark.parametrize("stop", range(1, 10))
def test_it_is_all_or_nothing(seed, monkeypatch, stop):
    """Killed at any of the renames: whoever opens the run next finds all where it was."""
    before, real, count = contents(seed), Path.rename, 0

    def failing(path, target):
        nonlocal count
        count += 1
        if count == stop:
            raise KeyboardInterrupt
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(KeyboardInterrupt):
            put_aside(seed, OFFLINE.results)
    assert contents(seed) == before  # a signal is undone at once

    count = 0
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        patch.setattr("experiments.runs.aside.put_back", lambda run: None)  # a kill is not
        with pytest.raises(KeyboardInterrupt):
            put_aside(seed, OFFLINE.results)
    assert (contents(seed) != before) == (stop > 1)
    RunFolder.create(seed, json.loads((seed / "config.json").read_text()), resume=True).close()
    assert contents(seed) == before


def test_a_study_half_put_aside_comes_back_into_its_folder(seed):
    before = contents(seed)
    moving = seed / REPLACED / f"1{MOVING}" / "farl"
    moving.mkdir(parents=True)
    os.rename(seed / "farl" / "horizon.json", moving / "horizon.json")
    put_back(seed)
    assert contents(seed) == before and not list((seed / REPLACED).iterdir())


def test_reports_pass_by_what_was_put_aside(seed, capsys):
    begin(run_of(seed), WORKS["uni_o4"], overwrite=True)
    assert [path.parent.name for path in find(seed, RESULT)] == ["farl"]
    assert main(["evaluate", str(seed)]) == 0
    assert json.loads((seed / "comparison.json").read_text())["methods"].keys() == {"farl"}


def test_what_is_stopped_after_it_put_aside_goes_on_by_resume():
    line = signals._line(["online", "runs/a", "--overwrite"], 15, "")
    assert line.endswith("continue with: farl online runs/a --resume")


def test_every_method_is_made_from_the_offline_phase():
    assert set(phases.METHODS) < set(OFFLINE.results) < set(DEMOS.results)
