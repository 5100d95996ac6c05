"""What a sweep is expected to cost: arithmetic over measurements, and the stored ones."""

import dataclasses
import json

import pytest
from rich.console import Console

from experiments.arguments import SweepArgs
from experiments.search_path import ROOT
from experiments.sweep import forecast as told
from experiments.sweep.cells import Sweep
from experiments.sweep.cost import Measured, forecast, memory_of, of_loop, of_run, time_over_one
from tests.experiments.finished_runs import result

KEY = ("push", "farl", "native", "cpu")
FAST = Measured(*KEY, steps_per_second=1000.0)


def test_the_same_task_counts_before_others():
    other = dataclasses.replace(FAST, task="wall", steps_per_second=10.0)
    found = forecast([other, FAST], KEY, [1, 1, 1], 5000)
    assert (found.runs, found.together, found.seconds) == (3, 1, 15.0)
    assert found.near == "this task"
    found = forecast([other], KEY, [1], 5000)
    assert found.seconds == 500.0 and found.near == "other tasks"


@pytest.mark.parametrize("field", ["method", "backend", "platform"])
def test_another_method_backend_or_device_says_nothing(field):
    other = dataclasses.replace(FAST, **{field: "other"}, memory_gb=1.0)
    found = forecast([other], KEY, [2], 5000)
    assert found.seconds is None and found.memory_gb is None and found.near == "nothing near"


def test_seeds_together_take_the_measured_share():
    assert time_over_one({}, 8) == 8.0  # as one after the other
    assert time_over_one({8: 4.5}, 1) == 1.0
    assert time_over_one({8: 4.5}, 8) == 4.5
    assert time_over_one({8: 4.5, 32: 8.75}, 15) == 8.0  # 8 is nearer: half a seed's time each
    assert time_over_one({8: 4.5, 32: 8.75}, 31) == 8.5
    many = dataclasses.replace(FAST, seeds=8, steps_per_second=None, over_one=4.5)
    assert forecast([FAST, many], KEY, [8, 8, 1], 1000).seconds == 10.0


def test_memory_is_a_line_through_what_was_measured():
    assert memory_of([], 1) is None
    assert memory_of([(1, 0.9), (1, 1.0)], 1) == 1.0
    assert memory_of([(1, 1.0)], 2) is None
    assert memory_of([(1, 1.0), (8, 4.5)], 4) == 2.5
    assert memory_of([(1, 1.0), (8, 4.5)], 16) == 8.5


def test_rows_of_runs_and_of_the_bench_are_read():
    row = result("push", "farl", 0, 1, 50.0)  # 10,000 steps in 60 s
    assert of_run(row, "gpu") == Measured(
        "push", "farl", "native", "gpu", steps_per_second=pytest.approx(1e4 / 60)
    )
    stored = list(told.stored(told._RESULTS))
    assert {m.method for m in stored} >= {"farl", "uni_o4", "cpo"}
    seeds = [m for m in stored if m.over_one is not None]
    assert seeds and all(1.0 < m.over_one < m.seeds for m in seeds)
    with open(f"{ROOT}/results/bench/train.json", encoding="utf-8") as file:
        row = json.load(file)["rows"][0]
    memory, speed = of_loop(row, "cpu")
    assert memory.memory_gb == row["peak_memory_gb"]
    assert speed.steps_per_second == row["steps_per_second"]


def test_a_sweep_tells_its_cost_before_it_starts(tmp_path, capsys):
    args = SweepArgs(
        out=tmp_path,
        set=("safety.max_risk=0.1,0.2",),
        seeds=3,
        method=("farl", "mppi"),
        together=True,
        backend="native",
        insist=True,
    )
    console = Console(width=110)
    farl, mppi = told.tell(Sweep(args, "farl sweep", console, alone=False), args, console)
    assert (farl.runs, farl.together) == (6, 6) and farl.seconds > 0 and farl.memory_gb > 0
    assert mppi.near == "this task"
    text = " ".join(capsys.readouterr().out.split())
    assert "6 cells, 3 offline phases" in text and "offline phases are unmeasured" in text
    fresh = dataclasses.replace(args, backend="mjx")
    told.tell(Sweep(fresh, "farl sweep", console, alone=False), fresh, console)
    assert capsys.readouterr().out.count("unmeasured") >= 5


def test_durations_are_words():
    values = (None, 20.0, 600.0, 7200.0, 200_000.0)
    assert [told.duration(v) for v in values] == [
        "unmeasured",
        "20 s",
        "10.0 min",
        "2.0 h",
        "2.3 days",
    ]


def test_a_device_that_wants_more_environments_says_so():
    assert told.advice(None, 128) == told.advice(4096, 4096) == told.advice(4096, 0) == ""
    assert "128 environments" in told.advice(4096, 128) and "4,096" in told.advice(4096, 128)
