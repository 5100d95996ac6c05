"""A model card has the numbers of its run's files."""

import pytest

from experiments.cli import main
from tests.docs import words
from tests.experiments.finished_runs import COMMIT, result, write_run
from tests.experiments.test_cli import fails


@pytest.fixture
def run(tmp_path):
    seed = tmp_path / "runs" / "seed3"
    write_run(seed, result("bounded_push", "uni_o4", 3, 20, 60.0))
    write_run(seed, result("bounded_push", "farl", 3, 5, 70.0), {"safety.horizon": 3})
    return seed


def test_a_card_has_the_runs_numbers(run, capsys):
    assert main(["card", str(run)]) == 0
    card = run / "farl" / "card.md"
    assert str(card) in capsys.readouterr().out.replace("\n", "")
    text = card.read_text("utf-8")
    assert text.startswith("# FARL (gate on) on `bounded_push`, seed 3\n")
    assert "| failure episodes in training | 5 of 100 | 20 of 100 |" in text
    assert "| return at the end | 70.0 (s.e. 1.0) | 60.0 (s.e. 1.0) |" in text
    assert "- recovery late: 4" in text
    assert f"- commit: {COMMIT}" in text and "- versions: jax 0.10.2" in text
    assert "- `safety.horizon` = `3`" in text
    assert f'load_run("{run}").safe_policy("farl")' in text
    prose = [fault for fault in words.faults(text) if "characters" not in str(fault)]
    assert prose == []  # a command and a path may be long


def test_an_ungated_policy_has_no_causes_and_no_other_to_compare_with(run):
    assert main(["card", str(run), "--method", "uni_o4"]) == 0
    text = (run / "uni_o4" / "card.md").read_text("utf-8")
    assert "what the gate had done" not in text and "No gate watches" in text
    assert "- eps_safe: -" in text and "| 20 of 100 |\n" in text


def test_no_card_without_a_result(run, tmp_path, capsys):
    assert "no run at" in fails(capsys, "card", str(tmp_path))
    line = fails(capsys, "card", str(run), "--method", "mppi")
    assert f"finish it with farl online {run} --method mppi" in line
    assert "unknown method 'magic'" in fails(capsys, "card", str(run), "--method", "magic")
