"""A run as a Python object, and `farl export` of it; the run has learnt nothing, but it acts."""

import json
import pathlib

import numpy as np
import pytest

from experiments import load_run
from experiments.cli import main
from experiments.errors import UserError
from farl_jax import deploy
from farl_jax.schema import SchemaError
from tests.docs.pages import python_blocks
from tests.experiments.policy.runs import write_untrained
from tests.experiments.test_cli import fails

ROOT = pathlib.Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_untrained(tmp_path_factory.mktemp("trained") / "seed0")


def files_of(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_run_says_what_it_is_and_nothing_is_written(run):
    before = files_of(run.path)
    trained = load_run(str(run.path))
    assert trained.settings == run.settings and trained.rows == []
    obs = np.random.default_rng(0).normal(size=(3, 2, 39))
    learnt = run.offline_result()
    mean = run.networks().policy.apply(learnt.policy, np.float32(obs))[0]
    np.testing.assert_allclose(trained.policy(obs), mean, atol=1e-6)
    assert trained.newest()[0] == 0  # the offline phase's
    with pytest.raises(UserError, match="39 numbers"):
        trained.policy(np.zeros(3))
    with pytest.raises(UserError, match="no risk critic yet: farl online"):
        trained.safe_policy("simple_critic")
    with pytest.raises(SchemaError, match="unknown method"):
        trained.safe_policy("farrl")
    with pytest.raises(SchemaError):
        trained.curve()
    assert files_of(run.path) == before


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no run at"):
        load_run(tmp_path)


@pytest.mark.parametrize("page", ["README.md", "docs/how-to/load.md", "docs/how-to/export.md"])
def test_the_pages_example(run, page):
    code = "".join(block for block in python_blocks(ROOT / page) if "farl_jax" not in block)
    shown = "runs/bounded_push/quick/seed0"
    assert shown in code
    names = {"obs": np.zeros(39)}
    exec(code.replace(shown, str(run.path)), names)
    assert names["action"].shape == (4,) and names["info"].keys() == {"risk", "intervened"}


def test_export_writes_what_acts(run, tmp_path, capsys):
    out = tmp_path / "deep" / "policy"
    words = ["export", str(run.path), "-o", str(out), "--formats", "jax", "--rate", "20"]
    assert main(words) == 0
    contract = json.loads((out / "contract.json").read_text())
    assert contract["sha256"] in capsys.readouterr().out
    assert contract["task"] == "bounded_push" and contract["rate_hz"] == 20.0
    assert contract["gate"]["eps_safe"] == pytest.approx(0.1) and contract["gate"]["horizon"] == 4
    names = [channel["name"] for channel in contract["observation"]]
    assert len(names) == len(set(names)) == 39
    assert names[:4] == ["hand x", "hand y", "hand z", "gripper opening"]
    assert names[18] == "hand x, one decision ago" and names[-1] == "goal z"
    assert [c["low"] for c in contract["action"]] == [-1.0] * 4
    policy, own = deploy.load(out), load_run(run.path).safe_policy()
    obs = np.random.default_rng(1).normal(size=39)
    ours, theirs = own.act(obs, own.start()), policy.act(obs, policy.start())
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-6)
    assert own.contract["weights_sha256"] == policy.contract["weights_sha256"]
    line = fails(capsys, *words)
    assert "exists already: choose another -o" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "nowhere", "-o", "policy"], "no run at nowhere"),
        (["export", "nowhere", "-o", "policy", "--method", "magic"], "magic"),
        (["export", "nowhere", "-o", "policy", "--formats", "tflite"], "tflite"),
        (["export", "nowhere", "-o", "policy", "--rate", "0"], "above 0"),
        (["bench", "deploy", "nowhere"], "no exported policy"),
    ],
)
def test_bad_words_are_one_line(capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    assert said in fails(capsys, *words)
    assert list(tmp_path.iterdir()) == []


def test_latencies_are_of_the_decisions_that_were_timed(run):
    from experiments.bench.deploy import latencies, measure

    times, share = measure(load_run(run.path).safe_policy(), 100)
    assert times.shape == (100,) and (times > 0).all() and 0 <= share <= 1
    found = latencies(np.arange(1, 102) / 1e3)
    assert found == {"median": 51.0, "p99": 100.0, "max": 101.0}
