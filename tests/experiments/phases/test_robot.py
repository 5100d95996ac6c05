"""Fifty episodes on one robot, at the size of a test: exact, shifted, and exactly resumed."""

import io
import json
import os
import signal

import pytest
from rich.console import Console

from envs_mjx import draw_shift
from experiments.cli import main
from experiments.errors import UserError
from experiments.phases import online
from experiments.process import signals
from experiments.runs.presets import RunSettings, check_run, preset, with_settings
from experiments.runs.run import open_run
from farl_jax.storage.metrics import read_metrics
from tests.experiments.phases.kill_harness import CHANGES, differences, ended, prepare

EPISODES = 4
SMALL = {name: value for name, value in CHANGES.items() if not name.startswith("online.")} | {
    "adaptation.every": 1,
    "risk_critic.chunk": 2,
    "risk_critic.steps": 4,
    "online.episodes": EPISODES,
    "online.epochs": 2,
    "online.eval_every": 500,
    "online.checkpoint_every": 1000,
    "online.eval_episodes": 2,
    "online.final_episodes": 2,
}


def fine_tune(path, method, stop_at=None):
    """Exit code of the online phase, which gets SIGTERM with its first line of a row, if asked."""
    text = io.StringIO()
    run, folder = open_run(path, Console(file=text, width=110), resume=True)
    said = text.write

    def write(line):
        if stop_at and "failures" in line and "failures" not in text.getvalue():
            os.kill(os.getpid(), signal.SIGTERM)
        return said(line)

    text.write = write
    with folder:
        work = lambda: online.fine_tune([run], method) and 0
        return signals.guarded(["online", str(path)], work)


@pytest.mark.parametrize(
    ("task", "method"), [("franka_fragile_push_wall", "farl"), ("bounded_push", "uni_o4")]
)
def test_a_small_run_has_its_episodes_and_resumes_exactly(tmp_path, task, method):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for path in (whole, cut):
        prepare(path, toy=False, task=task, name="robot", changes=SMALL)
    assert fine_tune(whole, method) == 0
    folder = whole / method
    result = json.loads((folder / "result.json").read_text())
    rows = read_metrics(folder / "metrics.jsonl")
    assert result["episodes"] == rows[-1]["episodes"] == EPISODES
    assert result["online_steps"] == rows[-1]["step"] <= EPISODES * 250
    assert [row["episodes"] for row in rows[1:]] == [2, 4]  # evaluated every other episode
    assert result["failing_steps"] >= result["failure_episodes"] <= EPISODES

    assert fine_tune(cut, method, stop_at=2) == 143
    assert not (cut / method / "result.json").exists()
    assert fine_tune(cut, method) == 0
    first, second = ended(folder), ended(cut / method)
    first.pop("rows"), second.pop("rows")  # the stop wrote a row of its own
    assert differences(first, second) == []


def test_the_online_phase_alone_is_shifted(tmp_path):
    prepare(tmp_path / "run", toy=False, task="franka_fragile_push_wall", name="robot")
    run, folder = open_run(tmp_path / "run", Console(file=io.StringIO()), resume=True)
    with folder:
        assert run.env(1).env.shift is None
        assert run.online_env(3).env.shift == draw_shift(0) and run.online_env(3).num_envs == 3
    prepare(tmp_path / "other", toy=False)
    run, folder = open_run(tmp_path / "other", Console(file=io.StringIO()), resume=True)
    with folder:
        assert run.online_env(1).env is run.env(1).env


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"online.rollout": 249},
            r"whole_episodes \(1\) x the episode's 250 steps \(250\); got 249",
        ),
        ({"online.episodes": 51}, r"env_steps must be at least 12,750, so that .*; got 12,500"),
    ],
)
def test_budgets_that_do_not_fit_are_refused(changes, said):
    config = with_settings(preset("robot"), changes)
    with pytest.raises(UserError, match=said):
        check_run(RunSettings("bounded_push", "robot", 0, None, config))


def test_seeds_of_different_robots_do_not_train_in_step(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["run"], ["reproduce", "--figure", "robot"]):
        assert main([*words, "--preset", "robot", "--seeds", "2", "--together"]) == 2
        said = capsys.readouterr().err
        assert "online.episodes gives each seed" in said and "leave --together out" in said
    assert list(tmp_path.iterdir()) == []
