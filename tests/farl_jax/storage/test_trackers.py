"""Trackers: a viewer gets the rows of a run, and one that cannot work is refused in one line."""

import functools
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pytest

from farl_jax.storage import trackers
from farl_jax.storage.metrics import MetricsWriter, read_metrics
from farl_jax.storage.trackers import Label, TensorBoard, TrackerError

KEYLESS = {"WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "TRACKIO_SPACE_ID", "HF_TOKEN"}
"""Variables of whoever runs the tests, which the tests do without."""


def writer(folder, tracker, label=None):
    return MetricsWriter(folder, functools.partial(tracker, label or Label("task/quick/seed0")))


def test_tensorboard_gets_the_finite_scalars_of_each_phase(tmp_path):
    with writer(tmp_path, TensorBoard) as rows:
        rows.write(5, {"loss": 0.25, "bad": float("nan")}, "online")
        rows.write(1, {"loss": 0.5}, "offline")
    (events,) = (tmp_path / "tb" / "online").iterdir()
    data = events.read_bytes()
    assert b"loss" in data and np.float32(0.25).tobytes() in data and b"bad" not in data
    assert (tmp_path / "tb" / "offline").is_dir()


def test_a_viewer_of_tensorboard_sees_the_rows_of_a_resumed_run_once(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with writer(tmp_path, TensorBoard) as rows:
        for step in (1, 2, 3):
            rows.write(step, {"loss": step}, "online")
    with writer(tmp_path, TensorBoard) as rows:
        rows.truncate_after("online", 1)
        rows.write(2, {"loss": 20}, "online")
    seen = events.EventAccumulator(str(tmp_path / "tb" / "online"))
    seen.Reload()
    assert [(event.step, event.value) for event in seen.Scalars("loss")] == [(1, 1.0), (2, 20.0)]


def test_no_tracker_writes_nothing_else(tmp_path):
    with writer(tmp_path, trackers.TRACKERS["none"]) as rows:
        rows.write(1, {"loss": 1.0}, "online")
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


TWO_SESSIONS = """
import functools, pathlib, sys
from farl_jax.storage.metrics import MetricsWriter
from farl_jax.storage.trackers import TRACKERS, Label
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
TRACKERS[name].check()
assert not {"wandb", "trackio"} - {name} & set(sys.modules)
label = Label("task/quick/seed0", "task/quick", {"seed": 0, "config": {"a": {"b": 1.5}}}, print)
track = functools.partial(TRACKERS[name], label)
other = functools.partial(TRACKERS[name], Label("task/quick/seed1", "task/quick"))
with MetricsWriter(folder / "a", track) as rows, MetricsWriter(folder / "b", other) as beside:
    rows.truncate_after("online", -1)
    for step in (1, 2, 3):  # two seeds at once
        rows.write(step, {"loss": step / 8, "bad": float("nan")}, "online")
        beside.write(step, {"loss": 5.0}, "online")
with MetricsWriter(folder / "a", track) as rows:
    rows.truncate_after("online", 2)
    rows.write(3, {"loss": 9.0}, "online")
"""


def run(script, *words, **variables):
    kept = {name: value for name, value in os.environ.items() if name not in KEYLESS}
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env=kept | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wandb_offline_gets_the_rows_and_a_resumed_run_its_id(tmp_path):
    pytest.importorskip("wandb")
    local = tmp_path / "local"
    local.mkdir()
    said = run(TWO_SESSIONS, tmp_path, "wandb", WANDB_MODE="offline", WANDB_DIR=str(local))
    number, other = ((tmp_path / n / "wandb" / "online.id").read_text() for n in ("a", "b"))
    first, second = (p.read_bytes() for p in sorted(local.rglob(f"run-{number}.wandb")))
    (beside,) = (p.read_bytes() for p in local.rglob(f"run-{other}.wandb"))
    assert b"loss" in first and b"0.375" in first and b"bad" not in first
    assert b"9" in second and b"0.375" not in second
    assert b"task/quick/seed0/online" in first and b"farl-jax" in first and b"1.5" in first
    assert "wandb sync " in said and len(said.splitlines()) == 2
    assert b"0.375" not in beside and b"task/quick/seed1/online" in beside
    own = {path.name for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert own == {"metrics.jsonl", "online.id"}  # W&B's own files have links to elsewhere


def test_trackio_gets_the_rows_of_both_sessions_in_one_run(tmp_path):
    pytest.importorskip("trackio")
    said = run(TWO_SESSIONS, tmp_path, "trackio", TRACKIO_DIR=str(tmp_path / "store"))
    assert (
        said.splitlines()
        == ["  Trackio: task/quick/seed0/online; trackio show --project farl-jax"] * 2
    )
    with sqlite3.connect(tmp_path / "store" / "farl-jax.db") as store:
        asked = "SELECT run_name, step, metrics FROM metrics ORDER BY id"
        found = store.execute(asked).fetchall()
        runs = store.execute("SELECT DISTINCT run_id, run_name FROM metrics").fetchall()
    own = [(step, values) for name, step, values in found if name == "task/quick/seed0/online"]
    assert [step for step, _ in own] == [1, 2, 3, 3]
    assert [b"0.125" in own[0][1], b"bad" in own[0][1], b"9.0" in own[3][1]] == [True, False, True]
    assert len(runs) == 2


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_package_that_is_not_installed_is_one_line(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrackerError, match=rf"--track {name} needs {name}: pip install 'farl-jax"):
        trackers.TRACKERS[name].check()


def test_tensorboard_is_imported_only_when_used(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with writer(tmp_path, trackers.TRACKERS["none"]) as rows:
        rows.write(1, {"loss": 1.0}, "online")
    with writer(tmp_path, TensorBoard) as rows, pytest.raises(ImportError):
        rows.write(2, {"loss": 1.0}, "online")
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2
