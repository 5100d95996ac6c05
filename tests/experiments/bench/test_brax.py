"""`farl bench brax`: its arithmetic, a stored answer of Brax's learner, and what it refuses."""

import json
import pathlib
import sys

import jax
import pytest

from experiments.bench.brax import LEARNERS, brax_turns, busy, compared, step_of, table
from experiments.bench.loop_parts import Setup
from experiments.cli import main
from experiments.errors import UserError
from experiments.process.console import plain_console
from farl_jax.methods import BASELINE, METHODS
from farl_jax.online.loop import make_online

SAMPLE = pathlib.Path(__file__).parent / "brax_sample.jsonl"
"""What tests/oracle/bench_brax.py printed: two training steps, on a loaded machine."""


@pytest.fixture
def python(tmp_path):
    """A program that answers as Brax's learner did, one line at each turn."""
    path = tmp_path / "python"
    path.write_text(
        "#!/bin/sh\nexec 3<&0\nwhile IFS= read -r step; do\n"
        f"  printf '%s\\n' \"$step\"; read -r turn <&3 || exit 0\ndone < '{SAMPLE}'\n"
    )
    path.chmod(0o755)
    return path


def test_a_stored_answer_is_read_turn_by_turn(python):
    stored = [json.loads(line) for line in SAMPLE.read_text().splitlines()]
    with brax_turns(python, {}) as turn:
        read = [turn() for _ in stored]
        assert read == stored and read[0]["brax"] == "0.14.2"
        with pytest.raises(UserError, match="it printed no training step"):
            turn()  # the answer is over


def test_the_update_is_the_difference_of_two_training_steps(capsys):
    turns = {"ours": [1.0, 2.0, 3.0], "brax_step": [4.0, 5.0, 5.0], "brax_twice": [8.0, 8.0, 9.0]}
    rows = compared(turns)
    by_name = {row["learner"]: row for row in rows}
    assert by_name["brax"]["seconds"] == 4.0  # of 4, 3 and 4
    assert (by_name["brax"]["lowest"], by_name["brax"]["highest"]) == (3.0, 4.0)
    assert by_name["brax"]["over_ours"] == 2.0
    size = {"num_envs": 128, "rollout": 32, "epochs": 5, "minibatches": 16}
    plain_console().print(table(rows, size))
    said = capsys.readouterr().out
    assert "4,096 steps, 5 epochs of 16 minibatches" in said
    assert "ours: PPO update" in said and "Brax: training step" in said


@pytest.mark.parametrize("line", ["", "[]", "7", '{"seconds": 1.0}', "I0000 a warning"])
def test_what_is_no_training_step_is_refused(line):
    with pytest.raises(ValueError):
        step_of(line)


def test_a_python_without_brax_is_one_line(capsys, tmp_path):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -S -I "$@"\n')  # no packages at all
    python.chmod(0o755)
    assert main(["bench", "brax", str(python)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "No module named 'brax'" in line and "give a Python with brax" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no_such_python"], "No such file"),
        (["/bin/true"], "it printed no training step"),
        (["/bin/true", "--num-envs", "24"], "multiple of 16"),
        (["/bin/true", "--rounds", "0"], "at least 1"),
        ([], "Python executable with brax"),
    ],
)
def test_bad_words_are_one_line(words, said, capsys):
    assert main(["bench", "brax", *words]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line


@pytest.mark.slow
def test_a_run_beside_the_stored_answer_writes_its_rows(python, tmp_path):
    out = tmp_path / "brax.json"
    words = [str(python), "--num-envs", "16", "--rounds", "1", "--out", str(out)]
    assert main(["bench", "brax", *words]) == 0
    written = json.loads(out.read_text())
    assert [row["learner"] for row in written["rows"]] == list(LEARNERS)
    assert min(written["turns"]["ours"]) > 0 and written["sizes"]["epochs"] == 5


@pytest.mark.slow
def test_only_a_busy_update_takes_every_gradient_step():
    setup = Setup("bounded_push", "native", 16)
    stopped = []
    for config in (busy(setup.config), setup.config):  # the second one warms its critic up
        phase = make_online(setup.env, setup.nets, config, METHODS[BASELINE])
        state = phase.init(setup.frozen, jax.random.key(0))
        state, steps = phase.collect(state, setup.frozen, setup.gate)
        for _ in range(3):
            state, metrics = phase.update(state, setup.frozen, steps)
            stopped.append(float(metrics["stopped"]))
    assert stopped == [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]
