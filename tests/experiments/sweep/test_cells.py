"""Sweeps: the grid is what was asked for, cells share what they may, and a crash costs one."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments.arguments import SweepArgs
from experiments.cli import main
from experiments.errors import UserError
from experiments.phases.demos import KINDS
from experiments.phases.offline import run_metadata
from experiments.phases.online import fine_tune
from experiments.runs.presets import RunSettings, parse_setting, preset, with_settings
from experiments.runs.provenance import base_settings, settings_read
from experiments.runs.run import start_run
from experiments.sweep.cells import Sweep
from experiments.sweep.grid import expand, plan, read_fields
from farl_jax.data import dataset
from farl_jax.methods import METHODS
from farl_jax.schema import SchemaError
from farl_jax.storage import checkpoint
from farl_jax.storage.metrics import MetricsWriter
from tests.experiments.finished_runs import result


def test_a_grid_combines_all_and_a_list_pairs():
    fields = {"a.x": [1, 2], "b.y": [3.0, None]}
    grid = expand(fields, paired=False)
    assert [tuple(cell.values()) for cell in grid] == [(1, 3.0), (1, None), (2, 3.0), (2, None)]
    assert expand(fields, paired=True) == [{"a.x": 1, "b.y": 3.0}, {"a.x": 2, "b.y": None}]
    with pytest.raises(UserError, match=r"a.x 2, b.y 3"):
        expand(fields | {"b.y": [1.0, 2.0, 3.0]}, paired=True)
    assert [row["b.y"] for row in expand(fields | {"b.y": [1.0]}, paired=True)] == [1.0, 1.0]
    again = {"a.x": [1, 2, 1], "b.y": [3, 3, 4]}
    assert [tuple(row.values()) for row in expand(again, paired=True)] == [(1, 3), (2, 3), (1, 4)]
    with pytest.raises(UserError, match=r"a.x=1,b.y=3 is given twice"):
        expand({"a.x": [1, 2, 1], "b.y": [3]}, paired=True)


def test_values_take_their_fields_type():
    words = ["safety.horizon=3, 6", "safety.max-risk=1e-3,1,none", "online.treatment=masked"]
    fields = read_fields([*words, "bc.steps=1_000"])
    assert fields == {
        "safety.horizon": [3, 6],
        "safety.max_risk": [1e-3, 1.0, None],
        "online.treatment": ["masked"],
        "bc.steps": [1000],
    }
    kinds = [type(v) for values in fields.values() for v in values]
    assert kinds == [int, int, float, float, type(None), str, int]
    changed = with_settings(preset("quick"), {"safety.horizon": 3, "bc.steps": 7})
    assert (changed.safety.horizon, changed.bc.steps) == (3, 7)
    assert changed.online == preset("quick").online


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("safety.horizn", "3", "did you mean safety.horizon"),
        ("safety", "3", "is a group"),
        ("safety.horizon.more", "3", "unknown setting"),
        ("safety.horizon", "3.5", "safety.horizon must be a whole number; got '3.5'"),
        ("safety.horizon", "none", "whole number"),
        ("safety.delta", "inf", "finite number"),
        ("safety.max_risk", "nan", "finite number or none"),
        ("online.treatment", "ignored", "executed, masked or relabelled"),
    ],
)
def test_what_no_field_can_take_is_named(name, text, said):
    with pytest.raises((UserError, SchemaError), match=said):
        parse_setting(name, text)


SHORT = ("--set", "world_model.train_horizon=4", "--set", "safety.horizon=3")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to sweep"),
        (["--set", "safety.horizon="], "has no value"),
        (["--set", "safety.horizon"], "--set must be FIELD=VALUE"),
        (["--set", "safety.horizon=3,3"], "3 is given twice"),
        (["--set", "safety.horizon=3", "--set", "safety.horizon=6"], "given twice"),
        (["--set", "safety.horizn=3"], "did you mean safety.horizon"),
        (["--set", "safety.horizon=three"], "'three'"),
        (["--set", "safety.horizon=3,40"], "train_horizon"),
        (["--set", "safety.horizon=3", "--seeds", "0"], "--seeds"),
        (["--set", "safety.horizon=3", "--method", "magic"], "unknown method 'magic'"),
        (["--set", "safety.horizon=3", "--task", "bounded_pusch"], "bounded_push"),
        (["--method", "farl", "mppi", *SHORT], "below world_model.train_horizon (4)"),
        (["--list", "--set", "safety.horizon=3,4,5", "--set", "bc.steps=1,2"], "bc.steps 2"),
    ],
)
def test_a_sweep_that_cannot_work_is_one_line_before_anything_runs(capsys, tmp_path, words, said):
    assert main(["sweep", *words, "-o", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_a_training_horizon_too_short_to_plan_with_is_refused_to_the_planner_alone(tmp_path):
    args = SweepArgs(tmp_path / "out", set=SHORT[1::2], method=("farl", "simple_critic"))
    (cell,) = plan(args)
    run, folder = start_run(cell.path, cell.settings, None, resume=False)
    with folder, pytest.raises(UserError, match=r"mppi.horizon must be below .* \(4\).*got 4"):
        fine_tune([run], "mppi")
    assert {entry.name for entry in cell.path.iterdir()} == {"config.json", "env.json"}


def settings(**changes) -> RunSettings:
    named = {name.replace("__", "."): value for name, value in changes.items()}
    return RunSettings(preset="smoke", config=with_settings(preset("smoke"), named))


def test_cells_share_the_offline_phase_unless_it_reads_what_differs():
    base = lambda **changes: base_settings(settings(**changes))
    one = base()
    assert one == base(safety__horizon=3, safety__max_risk=0.5, online__epochs=2)
    assert one == base(adaptation__every=0, safety__patience=9, constraint__limit=0.5)
    assert one == base(mppi__samples=8, risk_critic__max_risk=0.5)
    assert one != base(world_model__train_horizon=15) != base(bc__steps=3) != one
    assert one != base_settings(dataclasses.replace(settings(), seed=1))
    calibrated = base(safety__max_risk=None)
    assert calibrated == one  # the preset's own horizon: the same calibration
    assert calibrated != base(safety__max_risk=None, safety__horizon=3)
    assert calibrated != base(safety__max_risk=None, safety__lead_time=3)
    assert calibrated == base(safety__max_risk=None, safety__patience=9)
    for horizon in (4, 3):
        own = base(safety__max_risk=None, safety__horizon=horizon)
        assert base_settings(own) == own


def test_the_base_of_a_short_training_horizon_is_one_that_can_be_trained():
    short = {"world_model__train_horizon": 1, "safety__hold": 2}
    based = base_settings(settings(**short, safety__horizon=0))
    assert based == base_settings(settings(**short, safety__horizon=-1)) == base_settings(based)
    assert based.config.safety.horizon == 0
    long = {"world_model__train_horizon": 40, "online__rollout": 64}
    assert base_settings(settings(**long)).config.adaptation.every == 0


@pytest.mark.parametrize(
    ("method", "read"),
    [
        ("uni_o4", set()),
        ("farl", {"safety", "adaptation"}),
        ("simple_critic", {"safety", "risk_critic"}),
        ("mppi", {"safety", "adaptation", "mppi"}),
        ("cpo", {"constraint"}),
    ],
)
def test_cells_are_equal_to_a_method_where_it_does_not_read_what_differs(method, read):
    changes = {
        "safety": {"safety__patience": 9},
        "adaptation": {"adaptation__every": 0},
        "risk_critic": {"risk_critic__max_risk": 0.5},
        "mppi": {"mppi__samples": 8},
        "constraint": {"constraint__limit": 0.5},
        "online": {"online__epochs": 3},
        "world_model": {"world_model__train_horizon": 15},
    }
    seen = lambda **change: settings_read(settings(**change), METHODS[method])
    differing = {group for group, change in changes.items() if seen(**change) != seen()}
    assert differing == read | {"online", "world_model"}
    assert seen(online__epochs=3).config.online.epochs == 3


def row_of(seed=0, failures=5) -> dict:
    return result("bounded_push", "uni_o4", seed, failures, 50.0, preset="smoke")


def finish(out, horizon, row) -> None:
    """A cell that ran before, as far as a sweep looks at it."""
    path = out / f"safety.horizon={horizon}" / f"seed{row['seed']}"
    _, folder = start_run(path, settings(safety__horizon=horizon), None, resume=False)
    folder.close()
    (path / "uni_o4").mkdir()
    (path / "uni_o4" / "result.json").write_text(json.dumps(row))


def make_base(path) -> None:
    """Demonstrations and an offline checkpoint that say nothing, but are whole."""
    run, folder = start_run(path, base_settings(settings()), None, resume=False)
    row = {name: np.zeros(1, kind) for name, kind in dataset.FIELDS.items()}
    wide = {"obs": 39, "next_obs": 39, "action": 4, "intended": 4}
    row |= {name: np.zeros((1, size), np.float32) for name, size in wide.items()}
    for kind in KINDS:
        dataset.save_dataset(path / "demos" / f"{kind}.npz", row, {"task": "bounded_push"})
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), run.networks().abstract_agent())
    checkpoint.save(path / "offline", 0, {"result": zeros}, run_metadata(run, "offline"))
    with MetricsWriter(path) as writer:
        writer.write(1, {"nll": 0.5}, "offline")
    folder.close()


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_finished_cells_are_skipped_a_failing_one_costs_itself_and_methods_share(tmp_path, capsys):
    """Horizons 1 and 3 are finished and 2 is not; its base is a foreign folder, then a good one."""
    words = ["sweep", "--preset", "smoke", "--method", "uni_o4", "-o", str(tmp_path)]
    words += ["--set", "safety.horizon=1,2,3"]
    finish(tmp_path, 1, row_of())
    finish(tmp_path, 3, row_of(failures=7))
    base = tmp_path / "base" / "smoke" / "seed0"
    base.mkdir(parents=True)
    (base / "notes.txt").write_text("mine")
    assert main(words) == 1
    assert "failed: safety.horizon=2/seed0 uni_o4: UserError" in capsys.readouterr().out
    rows = lines(tmp_path / "sweep.jsonl")
    assert [(r["safety.horizon"], r["failure_episodes"]) for r in rows] == [(1, 5), (3, 7)]
    assert rows[0].items() >= row_of().items()
    (failed,) = lines(tmp_path / "failed.jsonl")
    assert failed["cell"] == "safety.horizon=2/seed0" and "notes.txt" in failed["error"]

    (base / "notes.txt").unlink()
    base.rmdir()
    make_base(base)
    assert main(words) == 0
    rows = lines(tmp_path / "sweep.jsonl")
    assert [r["failure_episodes"] for r in rows] == [5, 5, 7]  # no gate: 2 is trained as 1 was
    assert not (tmp_path / "failed.jsonl").exists()
    cell = tmp_path / "safety.horizon=2" / "seed0"
    demos = [folder / "demos" / "task.npz" for folder in (base, cell)]
    assert demos[0].samefile(demos[1])
    assert json.loads((cell / "config.json").read_text())["config"]["safety"]["horizon"] == 2
    assert (cell / "metrics.jsonl").read_bytes() == (base / "metrics.jsonl").read_bytes()

    other = tmp_path / "safety.horizon=2" / "seed0" / "uni_o4" / "result.json"
    other.unlink()
    saved = json.loads((base / "config.json").read_text())
    saved["config"]["bc"]["steps"] = 51
    (base / "config.json").write_text(json.dumps(saved))
    assert main(words) == 1  # a base of other settings is not taken
    assert "steps" in lines(tmp_path / "failed.jsonl")[0]["error"]


def test_a_sweep_that_goes_on_and_is_cut_off_again_loses_no_row(tmp_path, monkeypatch):
    def cut_off(*_, **__):
        raise KeyboardInterrupt

    words = ["sweep", "--preset", "smoke", "--method", "uni_o4", "-o", str(tmp_path)]
    finish(tmp_path, 1, row_of())
    finish(tmp_path, 3, row_of(failures=7))
    monkeypatch.setattr(Sweep, "_make_in_step", cut_off)
    assert main([*words, "--set", "safety.horizon=1,2,3"]) == 130
    assert [row["safety.horizon"] for row in lines(tmp_path / "sweep.jsonl")] == [1, 3]


def test_a_cell_that_holds_another_run_is_refused_before_anything_runs(tmp_path, capsys):
    finish(tmp_path, 3, row_of())
    words = ["--preset", "quick", "--method", "uni_o4", "--set", "safety.horizon=3"]
    assert main(["sweep", *words, "-o", str(tmp_path)]) == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.slow  # two real runs from one base, most of it compiling
@pytest.mark.timeout(1800)
def test_a_real_sweep_trains_resumes_and_survives_a_run_that_breaks(tmp_path):
    words = ["sweep", "--preset", "smoke", "--method", "farl", "-o", str(tmp_path)]
    words += ["--list", "--set", "safety.max_risk=1e-3,1e-2", "--set", "demos.num_envs=0,16"]
    assert main(words) == 1
    (row,), (failed,) = lines(tmp_path / "sweep.jsonl"), lines(tmp_path / "failed.jsonl")
    assert row["online_steps"] == 4096 and row["safety.max_risk"] == 1e-2
    assert "demos.num_envs=0" in failed["cell"] and failed["traceback"]
    result = tmp_path / row["cell"] / "farl" / "result.json"
    before = json.loads(result.read_text())
    result.unlink()  # as if cut off after its last checkpoint
    assert main(words) == 1
    after = json.loads(result.read_text())
    assert {k: v for k, v in after.items() if "wall" not in k} == {
        k: v for k, v in before.items() if "wall" not in k
    }


@pytest.mark.slow  # real runs, most of it compiling
@pytest.mark.timeout(1800)
def test_thresholds_and_seeds_that_train_together_give_what_they_give_alone(tmp_path):
    """One rollout and one fit of the critic, evaluated: each run acts by its own threshold.

    Not more: at this preset a relative change of 1e-7 in the observations alone moves a single
    run's value loss by some per cent in one update, as rounding does here.
    """
    words = ["sweep", "--preset", "smoke", "--set", "safety.max_risk=0.001,0.03,1"]
    words += ["--set", "safety.rule=paper", "--set", "online.env_steps=512"]
    assert main([*words, "-o", str(tmp_path / "a"), "--seeds", "2", "--together"]) == 0
    assert main([*words, "-o", str(tmp_path / "b"), "--method", "farl"]) == 0
    joint, single = lines(tmp_path / "a" / "sweep.jsonl"), lines(tmp_path / "b" / "sweep.jsonl")
    place = lambda row: (row["method"], row["seed"], row["safety.max_risk"])
    assert len({place(row) for row in joint}) == 12
    found = {place(row): row for row in joint}
    acted = [found[place(row)]["recovered_steps"] for row in single]
    assert acted == [row["recovered_steps"] for row in single] and acted[0] > acted[1] > acted[2]
    assert acted[2] == 0
    for row in single:
        for name in ("initial_return", "final_return", "final_return_without_gate"):
            assert found[place(row)][name] == pytest.approx(row[name], rel=1e-3, abs=1e-3)


def test_a_sweeps_folder_reaches_nowhere_else(tmp_path, capsys):
    out, other = tmp_path / "out", tmp_path / "other"
    out.mkdir()
    other.mkdir()
    (out / "manifest.json").write_text("{}")
    (out / "failed").symlink_to(other)
    words = ["sweep", "-o", str(out), "--preset", "smoke", "--set", "safety.horizon=3"]
    assert main(words) == 2
    line = capsys.readouterr().err
    assert str(out / "failed") in line and "link" in line and line.count("\n") == 1
    (out / "failed").unlink()
    (out / "sweep.jsonl").mkdir()
    assert main(words) == 2
    assert "is a folder" in capsys.readouterr().err and {*out.iterdir()} == {
        out / "manifest.json",
        out / "sweep.jsonl",
    }
