"""The terminal's lines: one in words for each stage, all numbers with --verbose."""

import io

import pytest
from rich.console import Console

from experiments.commands.opening import say_next
from experiments.runs import words
from experiments.runs.presets import RunSettings, preset
from experiments.runs.run import Run, reporter
from farl_jax.storage.metrics import MetricsWriter, read_metrics

CONFIG = preset("quick")
NAN = float("nan")
FORESIGHT = {"auroc_0": 0.98, "ece_0": 0.01, "auroc_1": 0.9, "onset_auroc_1": 0.8, "auroc_2": NAN}


@pytest.mark.parametrize(
    ("stage", "metrics", "said"),
    [
        ("clone", {"nll": -0.518}, "task policy cloned (held-out NLL -0.52)"),
        (
            "own_failures",
            {"episodes": 1280.0, "steps": 9.0, "failure_episodes": 31.0},
            "it acted for 1,280 episodes and failed in 31",
        ),
        ("task_policy", {"accepted": 3.0, "score": 1.0}, "task policy improved: 3 rounds accepted"),
        (
            "failure_head",
            FORESIGHT,
            "failures foreseen with AUROC 0.98 at imagined step 1, - at step 3 "
            "(1 is perfect, 0.5 chance)",
        ),
        (
            "calibration",
            {"max_risk": 0.0015, "recall": NAN, "trigger_rate": 0.031, "onsets": 0.0},
            "calibration: eps_safe 0.0015 would foresee - of failures and act on 3.1% of calm "
            "steps",
        ),
        ("another", {"a": 1.0, "b": 0.25}, "another: a 1  b 0.25"),
    ],
)
def test_a_stage_in_words(stage, metrics, said):
    assert words.stage_words(stage, metrics, CONFIG, 0.0) == said


def test_a_long_stage_says_how_far_it_is():
    line = lambda step, seconds: words.stage_words("world_model", {"step": step}, CONFIG, seconds)
    assert line(200, 0.0) == "world model: 200 of 1,200 updates"
    assert line(200, 0.05) == "world model: 200 of 1,200 updates, 50 s left"
    assert line(1200, 0.05) == "world model: 1,200 of 1,200 updates"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.0, "1 s left"), (59.6, "60 s left"), (100.0, "2 min left"), (9000.0, "2.5 h left")],
)
def test_the_time_left(seconds, said):
    assert words.time_left(seconds) == said


@pytest.mark.parametrize("verbose", [False, True])
def test_all_numbers_are_in_the_file_and_in_verbose_lines(tmp_path, verbose):
    text = io.StringIO()
    run = Run(tmp_path, RunSettings(config=CONFIG), False, Console(file=text, width=200), verbose)
    with MetricsWriter(tmp_path) as writer:
        report = reporter(run, writer, "offline")
        report("world_model", {"step": 200, "failure": 0.5})
        report("world_model", {"step": 400, "failure": 0.4})
    first, second = text.getvalue().splitlines()
    if verbose:
        assert first == "  offline world_model: step 200  failure 0.5"
    else:
        assert first == "  offline world model: 200 of 1,200 updates"
        assert second.startswith("  offline world model: 400 of 1,200 updates, ")
        assert second.endswith(" left")
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["world_model/failure"] for row in rows] == [0.5, 0.4]


def test_the_next_command_names_the_run_and_its_code():
    text = io.StringIO()
    console = Console(file=text, width=200)
    say_next(console, "online", "runs/a b/seed0", "bounded_push", " --method farl")
    say_next(console, "evaluate", "runs/c", "examples.push_upright:PushUpright")
    assert text.getvalue().splitlines() == [
        "next: farl online 'runs/a b/seed0' --method farl",
        "next: farl evaluate runs/c --task examples.push_upright:PushUpright",
    ]
