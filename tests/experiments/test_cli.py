"""The command line: bad input is one line and exit code 2, and the smoke run is whole."""

import importlib.metadata
import inspect
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from envs_mjx import TASKS
from experiments.arguments import StartArgs
from experiments.cli import _parse, main
from experiments.errors import UserError
from experiments.runs import presets
from experiments.runs.presets import PRESETS, RunSettings, check_run, preset
from farl_jax.data import dataset
from farl_jax.schema import SchemaError
from farl_jax.storage.metrics import read_metrics
from tests.docs.pages import DOCS

GLOSSARY = set(re.findall(r"`([\w/]+)`", (DOCS / "reference" / "metrics.md").read_text("utf-8")))


def _numbered(name: str) -> str:
    """A metric's name in the glossary: the number of an imagined step is i."""
    return re.sub(r"_\d+$", "_i", name)


def fails(capsys, *argv: str) -> str:
    """Run a command that must fail; returns its one line."""
    assert main(list(argv)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in lines if not line.startswith("farl: warning")]
    assert len(lines) == 1 and lines[0].startswith("farl: "), lines
    return lines[0]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["dance"], "unknown command 'dance'"),
        (["run", "--preset", "smoke", "--out", ""], "an option has an empty value"),
        (["run", "--preset", "smoke", "--out="], "an option has an empty value"),
        (["run", "--preset", ""], "unknown preset ''"),
        (["evaluate", ""], "an option has an empty value"),
        (["report", "runs", "-o", ""], "an option has an empty value"),
        (["run", "--task", "bounded_pusch"], "bounded_push"),
        (["run", "--backend", "cuda"], "native"),
        (["run", "--preset", "huge"], "smoke, quick, paper"),
        (["run", "--online.foo", "3"], "--online.foo"),
        (["run", "--online.env-steps", "many"], "env-steps"),
        (["run", "--online.treatment", "ignored"], "treatment"),
        (["run", "--seeds", "0"], "--seeds must be at least 1"),
        (["run", "--safety.horizon", "40"], "below world_model.train_horizon (5); got 40"),
        (["run", "--safety.horizon", "-2"], "at least -1"),
        (["run", "--safety.horizon", "-1", "--safety.no-tail"], "without safety.tail; got -1"),
        (["run", "--safety.rule", "hope"], "('paper', 'helps', 'shield')"),
        (["run", "--safety.hold", "0"], "--safety.hold must be at least 1; got 0"),
        (["run", "--safety.patience", "0"], "--safety.patience must be at least 1"),
        (["run", "--world-model.train-horizon", "0"], "must be at least 1"),
        (["run", "--safety.trigger-rate", "2"], "above 0 and below 1"),
        (["run", "--adaptation.memory", "1"], "at least 2"),
        (["run", "--safety.max-risk", "-0.5"], "at least 0"),
        (["run", "--safety.trigger-rate", "0.1", "--safety.min-risk", "1"], "min_risk (1.0)"),
        (
            ["run", "--constraint.limit", "5"],
            "at least 0 and below 1; got 5.0",
        ),
        (["run", "--constraint.max-kl", "0"], "above 0"),
        (["run", "--online.rollout", "4"], "set adaptation.every to 0"),
        (
            ["run", "--mppi.elites", "65"],
            "between 1 and mppi.samples (64); got 65",
        ),
        (["run", "--mppi.horizon", "5"], "below world_model.train_horizon (5)"),
        (["run", "--mppi.slots", "0"], "at least 1"),
        (["run", "--risk-critic.failure-share", "1.5"], "must be between 0 and 1"),
        (["run", "--risk-critic.transitions", "9"], "risk_critic.transitions (9); got 800"),
        (["run", "--world-model.encoder", "cnn"], "encoder"),
        (["reproduce", "--seeds", "0"], "at least 1"),
        (["reproduce", "--stored", "--seed", "35"], "only --figure"),
        (["reproduce", "--task", "bounded_pusch"], "bounded_push"),
        (["bench", "--metaworld", "no_such_python"], "no_such_python could not measure"),
        (["bench", "--metaworld", "/bin/true"], "printed nothing"),
        (["offline", "nowhere"], "no run at nowhere"),
    ],
)
def test_bad_words_are_one_line(capsys, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, *argv)
    assert list(tmp_path.iterdir()) == []  # nothing was written


def test_help_lists_every_command_and_every_number(capsys):
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("run", "reproduce", "online", "diagnose", "bench"))
    assert main(["run", "--help"]) == 0
    assert "--world-model.gamma-risk" in capsys.readouterr().out


def test_presets_name_no_task():
    """One setting for every task: neither their names nor parts of them."""
    text = Path(presets.__file__).read_text()
    assert not [task for task in TASKS if task in text]
    assert "task" not in inspect.signature(preset).parameters


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("task", TASKS)
def test_every_preset_is_accepted_on_every_task(name, task):
    check_run(RunSettings(task, name, 0, None, preset(name)))


def test_the_command_line_starts_from_the_preset():
    words = ["--task", "obstructed_push", "--preset", "smoke", "--online.epochs", "2"]
    parsed = _parse(StartArgs, "run", words)
    assert parsed.config.safety == PRESETS["smoke"].safety
    assert parsed.config.world_model == PRESETS["smoke"].world_model
    assert parsed.config.online.epochs == 2


@pytest.mark.parametrize("name", PRESETS)
def test_settings_round_trip_and_refuse_what_they_do_not_know(name):
    settings = RunSettings(preset=name, config=PRESETS[name])
    saved = json.loads(json.dumps(settings.to_json()))
    assert RunSettings.from_json(saved) == settings
    older = saved["config"]["bc"] | {}
    del older["holdout"]
    earlier = saved | {"config": saved["config"] | {"bc": older}}
    assert RunSettings.from_json(earlier) == settings
    with pytest.raises(SchemaError, match=r"unknown field 'extra' in config\.json"):
        RunSettings.from_json(saved | {"extra": 1})
    with pytest.raises(UserError, match="protocol"):
        RunSettings.from_json(saved | {"protocol": 999})
    saved["config"]["online"]["epochs"] = "five"
    with pytest.raises(SchemaError, match=r"config\.online\.epochs must be a whole number"):
        RunSettings.from_json(saved)


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """One whole smoke run; the film is the main path's, so a machine without GL fails here."""
    root = tmp_path_factory.mktemp("smoke")
    assert main(["run", "--preset", "smoke", "--out", str(root)]) == 0
    return root


@pytest.fixture
def copy(smoke, tmp_path):
    """A copy of the smoke run to damage."""
    return shutil.copytree(smoke, tmp_path / "run")


@pytest.mark.timeout(900)
def test_smoke_run_is_whole(smoke):
    seed = smoke / "seed0"
    for method in ("uni_o4", "farl"):
        result = json.loads((seed / method / "result.json").read_text())
        assert result["online_steps"] == 4096 and result["method"] == method
        rows = read_metrics(seed / method / "metrics.jsonl")
        assert rows[-1]["step"] == 4096
        assert rows[-1]["failure_episodes"] == result["failure_episodes"]
        assert {name for row in rows for name in row} <= GLOSSARY
        known = [result[f"control_{name}"] is not None for name in ("episodes", "failure_episodes")]
        assert known == [method == "farl"] * 2
    assert {_numbered(n) for row in read_metrics(seed / "metrics.jsonl") for n in row} <= GLOSSARY
    gated = result["failure_episodes"] - result["control_failure_episodes"]
    assert sum(result["causes"].values()) == gated
    assert json.loads((smoke / "comparison.json").read_text())["methods"].keys() == {
        "uni_o4",
        "farl",
    }
    for figure in ("comparison.png", "seed0/farl/film.mp4", "seed0/farl/sheet.png"):
        assert (smoke / figure).stat().st_size > 1000
    environment = json.loads((seed / "env.json").read_text())
    assert environment["packages"]["mujoco"] == "3.17.0"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_methods_are_filmed_side_by_side(smoke, capsys):
    assert main(["render", str(smoke / "seed0"), "--beside"]) == 0
    made = smoke / "seed0" / "farl" / "beside.gif"
    assert 1000 < made.stat().st_size < 3_000_000
    assert "Uni-O4 (gate off), FARL (gate on)" in " ".join(capsys.readouterr().out.split())
    line = fails(capsys, "render", str(smoke / "seed0"), "--beside", "--method", "mppi")
    assert "no result of mppi" in line


@pytest.mark.slow  # half a minute, most of it compiling
@pytest.mark.timeout(900)
def test_a_diagnosis_names_its_pairs_and_an_ungated_method_is_refused(smoke, capsys):
    seed = smoke / "seed0"
    assert "does not gate" in fails(capsys, "diagnose", str(seed), "--method", "uni_o4")
    assert main(["diagnose", str(seed)]) == 0
    found = json.loads((seed / "farl" / "diagnosis.json").read_text())
    assert list(found["pairs"]) == [
        "offline policy, offline model",
        "policy of step 4,096, offline model",
        "policy of step 4,096, its model",
    ]
    assert (seed / "farl" / "diagnosis.png").stat().st_size > 1000


@pytest.mark.timeout(900)
def test_finished_work_is_found_again_and_another_run_is_refused(smoke, capsys):
    before = (smoke / "seed0" / "farl" / "result.json").read_bytes()
    assert "--resume" in fails(capsys, "run", "--preset", "smoke", "--out", str(smoke))
    line = fails(capsys, "run", "--preset", "smoke", "--out", str(smoke), "--online.epochs", "4")
    assert "epochs" in line
    assert main(["online", str(smoke / "seed0"), "--method", "farl", "--resume"]) == 0
    assert (smoke / "seed0" / "farl" / "result.json").read_bytes() == before
    assert "unknown method" in fails(capsys, "online", str(smoke / "seed0"), "--method", "magic")


@pytest.mark.timeout(900)
def test_a_run_goes_on_in_a_folder_of_any_name_and_knows_its_own_parts(copy, capsys):
    odd = copy.rename(copy.with_name("lab [1] a*b\\"))
    seed = odd / "seed0"
    before = (seed / "farl" / "result.json").read_bytes()
    for words in (("offline",), ("online", "--method", "farl"), ("online", "--method", "uni_o4")):
        assert main([words[0], str(seed), *words[1:], "--resume"]) == 0
    assert (seed / "farl" / "result.json").read_bytes() == before
    made_from = json.loads(before)["made_from"]
    assert made_from["settings"]["seed"] == 0 and len(made_from["sources"]["offline"]) == 64
    shutil.copy(seed / "demos" / "failure.npz", seed / "demos" / "task.npz")
    words = ("demos", "--preset", "smoke", "--out", str(odd), "--resume")
    assert "must be of kind 'task'; got 'failure'" in fails(capsys, *words)
    shutil.rmtree(seed / "farl" / "checkpoints")
    (seed / "farl" / "result.json").unlink()
    assert "another demos/task.npz" in fails(capsys, "online", str(seed), "--resume")
    assert "another demos/task.npz" in fails(capsys, "online", str(seed), "--overwrite")
    assert "got 'failure'" in fails(capsys, "offline", str(seed), "--overwrite")
    assert (seed / "farl").is_dir() and not (seed / "replaced").exists()  # nothing was put aside
    changed = json.loads((seed / "config.json").read_text()) | {"seed": 1}
    (seed / "config.json").write_text(json.dumps(changed))
    assert "seed 0" in fails(capsys, "online", str(seed), "--resume")
    assert "seed is 1 in config.json and 0 in the result" in fails(capsys, "evaluate", str(seed))


@pytest.mark.timeout(900)
def test_damaged_files_are_named_and_left_alone(copy, capsys):
    seed = copy / "seed0"
    demos = seed / "demos" / "task.npz"
    whole = demos.read_bytes()
    learnt = (seed / "offline").rename(copy / "offline")
    again = ("offline", str(seed), "--resume")
    demos.write_bytes(whole[: len(whole) // 2])
    assert "task.npz" in fails(capsys, *again)
    assert demos.read_bytes() == whole[: len(whole) // 2]
    data, metadata = dataset.load_dataset(seed / "demos" / "failure.npz")
    dataset.save_dataset(demos, data, metadata | {"task": "other_task"})
    assert "other_task" in fails(capsys, *again)
    data["obs"][3, 4] = np.nan
    dataset.save_dataset(demos, data, metadata)
    assert "not finite" in fails(capsys, *again)
    demos.unlink()
    assert "no dataset" in fails(capsys, *again)

    learnt.rename(seed / "offline")
    biggest = max(
        (f for f in (seed / "offline").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(biggest.read_bytes())
    content[len(content) // 2] ^= 255
    biggest.write_bytes(content)
    (seed / "farl" / "result.json").unlink()
    assert "damaged" in fails(capsys, "online", str(seed), "--method", "farl", "--resume")
    assert biggest.read_bytes() == content


@pytest.mark.timeout(900)
def test_a_checkpoint_of_other_sizes_is_refused(copy, capsys):
    seed = copy / "seed0"
    config = json.loads((seed / "config.json").read_text())
    config["config"]["network"]["width"] = 64
    (seed / "config.json").write_text(json.dumps(config))
    (seed / "farl" / "result.json").unlink()
    line = fails(capsys, "online", str(seed), "--method", "farl", "--resume")
    assert "256" in line and "64" in line  # both shapes are named


def test_the_version_names_what_it_stands_on(capsys):
    assert main(["--version"]) == 0
    shown = capsys.readouterr().out
    for name in ("farl-jax", "jax", "mujoco", "python", "devices"):
        assert any(line.split()[0] == name for line in shown.splitlines()), name
    assert importlib.metadata.version("jax") in shown
