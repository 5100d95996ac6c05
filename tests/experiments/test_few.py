"""Statistics of one, or of nothing: None in JSON and `-` in a table, never NaN and no warning."""

import dataclasses
import io
import json
import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments import comparison, main_table
from experiments.bench import tasks
from experiments.cli import main
from experiments.comparison import summary
from experiments.figures.runs import diagnosis_figure, horizon_figure
from experiments.known import known, shown
from experiments.phases import demos
from experiments.phases.result import result_row
from experiments.process.outputs import write_json
from experiments.runs.run import Run
from experiments.studies import horizon as run_horizon
from experiments.sweep.command import summary as sweep_summary
from farl_jax.config import DemosConfig
from farl_jax.data.rollout import plain_decision
from farl_jax.measure import diagnosis, evaluate, horizon
from farl_jax.online.counters import Counters, summarize
from farl_jax.safety.gate import GateMemory
from farl_jax.world_model import scores
from tests.experiments.finished_runs import result, write_run
from tests.toy import CliffWalker, make_toy

FIELDS = [f.name for f in dataclasses.fields(Counters)]


@pytest.fixture(autouse=True)
def no_warning():
    """NumPy warns of a mean of nothing: nobody asks it for one."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


def text_of(table):
    console = Console(width=200, file=io.StringIO())
    console.print(table)
    return console.file.getvalue()


def test_a_number_that_does_not_exist():
    assert (known(math.nan), known(0.5), known(None), known("nan"), known(3)) == (
        *(None, 0.5, None, "nan", 3),
    )
    assert (shown(None, ".1f"), shown(math.nan, ".1f"), shown(0.25, ".1%")) == ("-", "-", "25.0%")


def test_one_episode_of_a_scripted_controller(tmp_path):
    assert tasks._mean(np.array([3.0])) == {"mean": 3.0, "standard_error": None}
    none, one = tasks.rate(np.zeros(0, bool)), tasks.rate(np.ones(1, bool))
    assert none == {"rate": None, "low": 0.0, "high": 1.0, "count": 0} and one["rate"] == 1.0
    rates = ("expert_success", "expert_failure", "careless_failure", "recovery", "recovery_failure")
    row = {"task": "toy", **dict.fromkeys(rates, none)}
    row |= dict.fromkeys(("random_return", "expert_return"), tasks._mean(np.array([3.0])))
    line = tasks._line(row)
    assert "recovery - [0.0%, 100.0%]" in line and "expert return 3.0 (se -)" in line
    write_json(tmp_path / "rows.json", {"rows": [row]})


@pytest.mark.slow  # half a minute, most of it compiling
def test_farl_tasks_with_one_episode(tmp_path, capsys):
    words = ["tasks", "--task", "bounded_push", "--episodes", "1"]
    assert main([*words, "--out", str(tmp_path / "rows.json")]) == 0
    assert "nan" not in capsys.readouterr().out
    (row,) = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert row["random_return"]["standard_error"] is None


def test_one_evaluation_episode_has_no_standard_error():
    env = make_toy(1)
    act = lambda memory, state, key: (memory, plain_decision(jnp.ones((1, 1))))
    judged = evaluate.make_evaluate(env, lambda: (None, act))(jax.random.key(0))
    scores = {name: float(value) for name, value in judged.items()}
    assert [name for name, value in scores.items() if math.isnan(value)] == ["normalized_return_se"]


def test_a_row_of_such_an_evaluation_is_json(monkeypatch, tmp_path):
    """`online.eval_episodes 1`: found after training, when the result was to be written."""
    zero = Counters.zero()
    state = type("State", (), {"counters": zero, "env_steps": 0, "learners": None})
    scores = dict.fromkeys(("normalized_return", "success", "failure_episodes"), 0.5)
    scores["normalized_return_se"] = math.nan
    settings = type("S", (), {"task": "toy", "seed": 0, "preset": "smoke"})
    run = Run(tmp_path, settings, False, Console(quiet=True))
    monkeypatch.setattr(Run, "env", lambda self, size: make_toy(size))
    row = result_row(run, "uni_o4", state, None, (scores,) * 3)
    assert row["final_return_se"] is None and row["final_return"] == 0.5
    write_json(tmp_path / "result.json", row)


def test_rates_of_no_episode_are_not_in_a_row():
    some = Counters.zero().replace(episodes=jnp.int32(4), return_sum=jnp.float32(8.0))
    assert summarize(some, None, [])["rollout_return"] == 2.0
    none = summarize(some, some, [])
    assert none["episodes"] == 4.0 and not [name for name in none if name.startswith("rollout_")]


def test_a_baseline_that_never_failed_leaves_nothing_to_reduce():
    base, ours = ([result("t", m, 0, n, 9.0)] for m, n in (("uni_o4", 0), ("farl", 3)))
    found = comparison.paired(base, ours)
    assert found["reduction_percent"] is None and found["reduction_interval"] is None
    by_task = {"t": {"uni_o4": base, "farl": ours}}
    assert comparison.mean_reduction(by_task) is None
    *_, line = text_of(main_table._table("t", by_task["t"])).splitlines()
    assert line.split()[-2:] == ["-", "+0.0"]
    other = {m: [result("u", m, 0, n, 9.0)] for m, n in (("uni_o4", 10), ("farl", 4))}
    assert comparison.mean_reduction(by_task | {"u": other}) == pytest.approx((60.0,) * 3)
    assert summary(by_task["t"], "farl")["reduction"] is None


def test_the_table_of_a_run_in_which_nothing_failed(tmp_path, capsys):
    for method in ("uni_o4", "farl"):
        row = result("bounded_push", method, 0, 0, 9.0, causes=None)
        folder = write_run(tmp_path / "seed0", row).parent
    assert main(["evaluate", str(folder)]) == 0
    assert "failure episodes: none to reduce" in capsys.readouterr().out
    assert json.loads((folder / "comparison.json").read_text())["reduction_percent"] is None


def test_a_run_that_ended_no_episode_is_in_the_report(tmp_path, capsys):
    none = {"episodes": 0, "causes": None, "final_return_se": None}
    row = result("bounded_push", "farl", 0, 0, 9.0, **none)
    assert summary({"farl": [row]}, "farl")["failure_rate"] is None
    write_run(tmp_path / "seed0", row)
    assert main(["report", str(tmp_path / "seed0"), "-o", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "1 runs, 0 left out" in capsys.readouterr().out and ">nan" not in page


def test_a_sweep_of_one_seed_has_no_limits():
    row = {"safety.horizon": 3, "method": "farl", "failure_episodes": 0, "episodes": 0}
    shown = text_of(
        sweep_summary([row | {"final_return": 1.5, "final_success": 0.0}], ["safety.horizon"])
    )
    assert "1.5" in shown and "nan" not in shown and "[" not in shown.splitlines()[-2]


def outcomes(**counts):
    """Of two gates, the second the baseline, on two environments: those counts everywhere."""
    fill = lambda value: jnp.full((2, 2), value, jnp.float32)
    counters = Counters(**{name: fill(counts.get(name, 0)) for name in FIELDS})
    memory = GateMemory(fill(0), fill(0), fill(0), fill(0))
    calm, alarms = fill(counts.get("calm", 0)), fill(0)
    trial = horizon.Trial(memory, None, counters, calm, alarms)
    return horizon.outcomes(trial, make_toy(2), draws=10)


def test_a_study_in_which_no_episode_ended(tmp_path):
    rows = [{k: known(v) for k, v in row.items()} for row in outcomes(calm=10)]
    for row in rows:
        assert row["episodes"] == 0 and row["recovered_share"] == row["trigger_rate"] == 0.0
        assert row["return"] is row["success"] is row["failure_rate"] is None
    assert outcomes(failing_steps=10)[0]["trigger_rate"] is not None  # NaN, as arithmetic has it


def test_the_tables_and_figures_of_such_a_study(tmp_path):
    acting = jax.tree.map(known, outcomes(calm=10))
    watched = {"recall": None, "lead": None, "recall_by_lead": [None] * 4}
    where = {"gamma_risk": 0.9, "max_risk": None, "beyond_training": False, "target_rate": 0.1}
    row = {"horizon": 3, **where, "watched": watched, "acting": acting[0]}
    known_return = acting[0] | {"return": 5.0}  # though a resampled one does not exist
    rows = [row, row | {"horizon": 8, "acting": known_return}]
    report = {"task": "t", "seed": 0, "policy_step": 0, "train_horizon": 13, "command": "farl"}
    report |= {"rows": rows, "ungated": acting[1]}
    write_json(tmp_path / "horizon.json", report)
    assert "nan" not in text_of(run_horizon._table(report)).lower()
    assert horizon_figure(tmp_path / "horizon.png", report).stat().st_size > 10_000


def test_gates_without_a_calm_step_have_no_threshold():
    eps = horizon.matched_thresholds(np.ones((3, 4, 2)), np.zeros((4, 2), bool), (0.1, 0.2))
    assert eps.shape == (2, 3) and np.isnan(eps).all()


@pytest.mark.parametrize("failing", [False, True])
def test_a_diagnosis_where_nothing_or_everything_failed(tmp_path, failing):
    failure = np.full((12, 2), failing)
    done = np.zeros_like(failure)
    done[5] = True
    labels, sure = diagnosis.later_failures(failure, done, 3)
    probability, cost = np.full(labels.shape, 0.5), np.full(failure.shape, 0.5)
    gate = diagnosis.gate_report(cost, labels, done, max_risk=0.1, lead_time=2)
    report = {
        "foresight": diagnosis.foresight(probability, labels, sure, failure),
        "reliability": diagnosis.reliability(cost, labels, sure, failure, 0.9),
        "gate": gate,
        "thresholds": [gate],
        "decoder_m": {"hand": [0.1, 0.2], "object": [0.1, 0.2]},
    }
    assert math.isnan(gate["lead"]) and math.isnan(gate["trigger_rate"]) is failing
    assert math.isnan(report["foresight"]["rate"][0]) is failing
    assert known(report["foresight"]["auroc"][0]) is None
    path = diagnosis_figure(tmp_path / "diagnosis.png", {"pair": report}, 0.1, "t", "farl")
    assert path.stat().st_size > 10_000


def test_calibration_of_nothing():
    assert math.isnan(scores.calibration_error(np.zeros(0), np.zeros(0, bool)))


class Walker(CliffWalker):
    """With controllers of its own."""

    def expert(self, obs):
        return jnp.array([-1.0])

    def careless_traits(self, key):
        return jnp.zeros(())

    def careless(self, obs, traits):
        return jnp.array([1.0])


@pytest.mark.parametrize("number", [1, 3])
def test_an_odd_number_of_failure_episodes_is_collected_whole(number):
    config = DemosConfig(task_episodes=2, failure_episodes=number, recovery_episodes=2, num_envs=4)
    collected = demos.collect(Walker(), config, jax.random.key(0))
    counts = {kind: counted["episodes"] for kind, (_, counted) in collected.items()}
    assert counts == {"task": 2, "failure": number, "recovery": 2}
