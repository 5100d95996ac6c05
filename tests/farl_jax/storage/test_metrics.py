"""Metrics: strict rows, survival of a killed writer, and rows beyond a restore taken back."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.schema import SchemaError
from farl_jax.storage import metrics
from farl_jax.storage.metrics import MetricsWriter, OnlineRow, read_metrics


def fill(folder, steps, phase="online"):
    with MetricsWriter(folder) as writer:
        for step in steps:
            writer.write(step, {"loss": step / 2}, phase)


def test_rows_are_flushed_strict_json_with_plain_numbers(tmp_path):
    writer = MetricsWriter(tmp_path)
    values = {
        "a": jnp.float32(0.5),
        "b": np.int64(3),
        "c": float("nan"),
        "d": -np.inf,
        "e": True,
        "f": jnp.array([2.0]),
    }
    writer.write(np.int32(7), values, "offline")
    line = (tmp_path / "metrics.jsonl").read_text()  # before close

    def refuse(name):
        raise AssertionError(name)

    row = json.loads(line, parse_constant=refuse)
    assert row == {
        "phase": "offline",
        "step": 7,
        "a": 0.5,
        "b": 3,
        "c": None,
        "d": None,
        "e": 1,
    } | {"f": 2.0}
    assert isinstance(row["b"], int)
    writer.close()


@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"step": 1.0}, "called 'step'"),
        ({"x": np.ones(2)}, "'x' is not a scalar"),
        ({"x": "1"}, "str"),
    ],
)
def test_bad_values_are_refused_and_write_nothing(tmp_path, values, match):
    with MetricsWriter(tmp_path) as writer, pytest.raises(ValueError, match=match):
        writer.write(1, values, "online")
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_reopening_appends(tmp_path):
    fill(tmp_path, [1, 2])
    fill(tmp_path, [3])
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def test_a_half_written_last_line_is_left_out_then_dropped(tmp_path):
    fill(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + '{"phase": "online", "st\u00e9'.encode()[:-1])
    with pytest.warns(UserWarning, match="half-written"):
        assert len(read_metrics(path)) == 2
    with pytest.warns(UserWarning, match="half-written"):
        fill(tmp_path, [3])
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_a_last_row_that_only_lacks_its_newline_is_kept(tmp_path):
    fill(tmp_path, [1, 2])
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    fill(tmp_path, [3])
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3]


def test_damage_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    fill(tmp_path, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    for bad, said in (
        (lines[1][:9], "cut off"),
        (lines[1][2:], "not JSON"),
        ("[1]", "must be a group of fields"),
        ('{"step": 2}', "field 'phase' is missing"),
        ('{"phase": "online", "step": true}', "step must be a whole number; got true"),
        ('{"phase": "online", "step": 2, "loss": "low"}', "loss must be a finite number or none"),
        ('{"phase": "online", "step": 2, "loss": NaN}', "NaN is no JSON"),
        ('{"phase": "online", "step": 2, "loss": 1e999}', "got inf"),
    ):
        path.write_text("\n".join([lines[0], bad, lines[2]]) + "\n")
        with pytest.raises(SchemaError, match=rf"metrics\.jsonl, line 2: .*{said}"):
            read_metrics(path)
        with (
            MetricsWriter(tmp_path) as writer,
            pytest.raises(SchemaError, match="line 2"),
        ):
            writer.truncate_after("online", 1)
        assert path.read_text().splitlines() == [lines[0], bad, lines[2]]


def test_a_row_of_the_online_phase_says_what_resuming_and_figures_need(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = {"phase": "online", "step": 1, "failure_episodes": 2.0, "wall_seconds": 3.5}
    path.write_text(json.dumps(row | {"loss": None, "eval_return": 1}) + "\n")
    assert read_metrics(path, OnlineRow)[0]["wall_seconds"] == 3.5
    for change, said in (
        ({"wall_seconds": None}, "wall_seconds must be a finite number; got null"),
        ({"wall_seconds": -1.0}, "wall_seconds must be between 0 and"),
        ({"failure_episodes": 1e39}, "failure_episodes must be between"),
        ({"phase": "offline"}, "phase must be online"),
    ):
        path.write_text(json.dumps(row | change) + "\n")
        with pytest.raises(SchemaError, match=f"line 1: {said}"):
            read_metrics(path, OnlineRow)


def test_truncate_after_drops_one_phase_beyond_the_step(tmp_path):
    fill(tmp_path, [1, 2, 9], "offline")
    fill(tmp_path, [1, 2, 3])
    with MetricsWriter(tmp_path) as writer:
        assert writer.truncate_after("online", 1) == 2
        assert writer.truncate_after("online", 1) == 0
        writer.write(2, {"loss": 8.0}, "online")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    offline = [("offline", 1), ("offline", 2), ("offline", 9)]
    assert [(r["phase"], r["step"]) for r in rows] == [*offline, ("online", 1), ("online", 2)]
    assert rows[-1]["loss"] == 8.0
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_failed_truncation_keeps_every_row(tmp_path, monkeypatch):
    fill(tmp_path, [1, 2, 3])

    def full(_):
        raise OSError(28, "No space left on device")

    with MetricsWriter(tmp_path) as writer:
        monkeypatch.setattr(metrics.os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            writer.truncate_after("online", 1)
        writer.write(4, {}, "online")
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]
