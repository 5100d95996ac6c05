"""The lower bounds of memory and time: below what was measured, and above what cannot be."""

import json
import pathlib

import pytest

from experiments.cli import COMMANDS, main
from experiments.errors import UserError
from experiments.runs import estimate
from experiments.runs.presets import PRESETS, RunSettings
from farl_jax.config import FarlConfig, replace
from farl_jax.schema import hints_of

ROOT = pathlib.Path(__file__).parents[3]


def test_parameters_are_those_of_the_networks():
    assert estimate.parameters(FarlConfig())["policy"] == 39 * 256 + 2 * 256**2 + 256 * 8
    deep = replace(FarlConfig(), {"network": {"width": 10, "depth": 5}})
    assert estimate.parameters(deep)["policy"] == 390 + 400 + 80


def test_a_bound_lies_below_what_runs_took_and_not_far_below():
    rows = [json.loads(line) for line in (ROOT / "results/main.jsonl").read_text().splitlines()]
    took = [
        r["wall_seconds"] for r in rows if r["task"] == "bounded_push" and r["method"] == "farl"
    ]
    bound = estimate.needs_of(PRESETS["paper"], methods=1).seconds / 2  # on two cores
    assert min(took) / 20 < bound < min(took)


def test_memory_grows_with_what_fills_it():
    total = lambda config: sum(estimate.needs_of(config).memory.values())
    plain = total(FarlConfig())
    assert 5e7 < plain < 1e9  # `farl run --preset paper` peaks at 2 GB
    for group, field, value in (
        ("network", "width", 4096),
        ("online", "num_envs", 1 << 20),
        ("online", "eval_episodes", 1 << 20),
        ("demos", "recovery_episodes", 1 << 20),
        ("adaptation", "windows", 1 << 20),
        ("world_model", "bins", 1 << 20),
        ("bc", "members", 1 << 12),
    ):
        assert total(replace(FarlConfig(), {group: {field: value}})) > 2 * plain, field


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--seeds", "100000"], "days here (100,000 runs by 2 methods"),
        (["run", "--preset", "smoke", "--seeds", "100000"], "days here"),
        (["run", "--seeds", "100000000"], "days here (100,000,000 runs by 2 methods"),
        (["run", "--online.env-steps", "100000000000000"], "days here"),
        (["run", "--online.epochs", "1000000000"], "days here"),
        (["run", "--network.width", "1000000000"], "GB of memory, most of it for network.width,"),
        (["run", "--network.depth", "1000000000000"], "lower"),
        (["demos", "--demos.num-envs", "1000000000"], "demos.num_envs"),
        (["sweep", "-o", "s", "--set", "bc.members=1000000000"], "bc.members"),
        (["reproduce", "--preset", "paper", "--seeds", "100000000"], "days here"),
        (["tasks", "--episodes", "1000000000"], "lower --episodes"),
        (["bench", "--num-envs", "64", "1000000000"], "lower --num-envs"),
        (["bench", "train", "--num-envs", "1000000000"], "lower --num-envs"),
    ],
)
def test_what_cannot_fit_is_one_line_before_anything_is_written(
    capsys, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0]
    can_insist = "insist" in hints_of(
        COMMANDS[words[0] if words[1] != "train" else "bench train"][0]
    )
    assert ("--insist" in lines[0]) == can_insist
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_somebody_else_started_is_estimated_too(tmp_path, capsys):
    saved = RunSettings(config=replace(FarlConfig(), {"network": {"width": 10**9}})).to_json()
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert main(["offline", str(tmp_path)]) == 2
    assert "lower network.width" in capsys.readouterr().err


def test_who_insists_is_believed():
    wide = replace(FarlConfig(), {"network": {"width": 10**9}})
    with pytest.raises(UserError, match="add --insist"):
        estimate.check_fits(wide)
    estimate.check_fits(wide, insist=True)
