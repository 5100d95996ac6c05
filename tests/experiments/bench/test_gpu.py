"""`farl bench gpu`: its plan, its records, what it skips, and its tables."""

import dataclasses
import json

import pytest
from rich.console import Console

from envs_mjx import SUITES
from experiments.bench.gpu import KIT, make_all
from experiments.bench.gpu_page import enough, page
from experiments.bench.gpu_stages import DRY, FULL, STAGE_SECONDS, Stage, stages
from experiments.cli import COMMANDS, _parse, main

QUIET = Console(quiet=True)


@pytest.mark.parametrize("sizes", [FULL, DRY])
def test_no_stage_takes_long_and_each_is_a_command_line_of_ours(sizes, tmp_path):
    plan = stages(sizes, tmp_path)
    assert max(stage.limit for stage in plan) <= STAGE_SECONDS
    assert len({stage.name for stage in plan}) == len(plan)
    assert {stage.kind for stage in plan} == {"tests", "physics", "loop", "prepare", "run", "seeds"}
    assert plan.index(next(stage for stage in plan if stage.kind == "run")) < 12
    for first, *words in (stage.command for stage in plan):
        if first == "farl":
            name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
            assert _parse(COMMANDS[name][0], name, words[len(name.split()) :]) is not None


def test_the_full_kit_covers_all_tasks_on_both_backends_up_to_32k_environments():
    assert set(FULL.tasks) == set(SUITES["failurebench"])
    assert set(FULL.physics) == set(FULL.backends) == {"mjx", "warp"}
    assert (min(FULL.num_envs), max(FULL.num_envs)) == (1024, 32768)
    assert FULL.preset == "paper" and FULL.seeds == (8, 32)


def test_a_stage_is_recorded_when_it_ends_and_done_once(tmp_path):
    good = Stage("good", "physics", ("farl", "--version"), 100.0)
    bad = Stage("bad", "physics", ("farl", "bench", "--task", "bounded_pusch"), 100.0)
    slow = Stage("slow", "physics", ("farl", "tasks", "--episodes", "100000"), 13.0)
    ended = make_all([good, bad, slow], tmp_path, 1e4, QUIET)
    assert [row["state"] for row in ended.values()] == ["done", "failed", "failed"]
    assert "bounded_push" in ended["bad"]["reason"] and "\n" not in ended["bad"]["reason"]
    assert "stopped after its 13 s" in ended["slow"]["reason"]
    assert json.loads((tmp_path / KIT).read_text())["stages"] == ended
    again = make_all([good, bad], tmp_path, 0.0, QUIET)  # no time for what is not done
    assert again["good"] == ended["good"]
    assert again["bad"]["state"] == "left"
    other = dataclasses.replace(good, command=("farl", "--help"))
    assert make_all([other], tmp_path, 0.0, QUIET)["good"]["state"] == "left"


def row(task, backend, size, rate):
    return {
        **{"task": task, "backend": backend, "num_envs": size},
        **{"steps_per_second": rate, "compile_seconds": 3.0},
    }


def test_the_smallest_batch_near_the_best_speed_is_enough():
    rows = [row("a", "mjx", 1, 50.0), row("a", "mjx", 2, 95.0), row("a", "mjx", 4, 100.0)]
    assert enough(rows) == {"mjx": (2, 95.0)}
    rows += [row("b", "mjx", 1, 10.0), row("b", "mjx", 2, 40.0)]  # 4 was too much for task b
    rows += [row("a", "warp", 1, 200.0)]
    assert list(enough(rows).items()) == [("warp", (1, 200.0)), ("mjx", (2, 67.5))]


def test_the_page_says_what_was_not_measured():
    stage = {"state": "failed", "seconds": 3.0, "cpu_seconds": 2.0, "reason": "no wheels"}
    found = {"stages": {"physics_mjx_a": stage}, "loop": [], "seeds": [], "run": []}
    found |= {"physics": [row("a", "mjx", 1024, 5e5)], "dry": False}
    found |= {"environment": {"device": {"kind": "H100", "count": 1}}}
    text = page(found)
    assert "| physics_mjx_a | failed | 3 | 2 | no wheels |" in text
    assert "| a | mjx | 1,024 | 500,000 | 3.0 |" in text
    assert text.count("Not measured.") == 3


def test_without_an_accelerator_it_is_one_line(capsys, tmp_path):
    assert main(["bench", "gpu", "--out", str(tmp_path)]) == 2
    assert "--dry" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_dry_form_measures_all_kinds(tmp_path):
    assert main(["bench", "gpu", "--dry", "--out", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert all(found[kind] for kind in ("physics", "loop", "seeds", "run"))
    states = {name: row["state"] for name, row in found["stages"].items()}
    del states["physics_warp_bounded_push"]  # done or failed, as the extra is installed or not
    assert set(states.values()) == {"done"}
    assert (tmp_path / "physics.png").exists() and (tmp_path / "gpu.md").exists()
