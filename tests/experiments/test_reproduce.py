"""The paper's figures beside ours: the arithmetic on known rows, and that pictures are drawn."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from experiments import comparison, main_table, reproduce, robot_table
from experiments.cli import main
from experiments.errors import UserError
from experiments.figures.paper import read_paper
from farl_jax.measure.intervals import bootstrap_interval


def row(task, method, seed, failures, final):
    return {
        "task": task,
        "method": method,
        "seed": seed,
        "online_steps": 1000,
        "episodes": 100,
        "failure_episodes": failures,
        "failing_steps": 10 * failures,
        "recovered_steps": 50 if method == "farl" else 0,
        "initial_return": 10.0,
        "final_return": final,
        "initial_success": 0.1,
        "final_success": 1.0,
        "causes": None,
        "max_risk": None,
        "wall_seconds": 1.0,
        "backend": "native",
        "git": None,
    }


ROWS = [
    row("bounded_push", "uni_o4", 0, 100, 90.0),
    row("bounded_push", "uni_o4", 1, 300, 100.0),
    row("bounded_push", "farl", 1, 60, 101.0),
    row("bounded_push", "farl", 0, 40, 92.0),
    row("obstructed_push", "uni_o4", 0, 50, 80.0),
    row("obstructed_push", "farl", 0, 25, 70.0),
]


def test_rows_are_paired_by_seed_whatever_their_order():
    by_task = reproduce.group(ROWS)
    assert list(by_task) == ["bounded_push", "obstructed_push"]
    assert [r["seed"] for r in by_task["bounded_push"]["farl"]] == [0, 1]


def test_the_mean_reduction_averages_tasks_and_its_interval_keeps_seeds_together():
    low, mean, high = comparison.mean_reduction(reproduce.group(ROWS))
    assert mean == pytest.approx((75.0 + 50.0) / 2)  # totals 400 -> 100, and 50 -> 25
    # seeds of the first task reduce by 60 and 80 %; the second has one seed: no spread
    assert low == pytest.approx((60.0 + 50.0) / 2) and high == pytest.approx((80.0 + 50.0) / 2)


def test_rows_of_the_same_settings_stay_and_others_are_left_out(tmp_path):
    text, path = io.StringIO(), tmp_path / "main.jsonl"
    console = Console(file=text, width=200)
    now = reproduce.settings_of("bounded_push", "quick")
    other = reproduce.settings_of("bounded_push", "paper")
    assert reproduce.still_valid(tmp_path, "quick", console) == ([], {})
    rows = [ROWS[0] | {"settings": "a"}, ROWS[1] | {"settings": "b"}, ROWS[2] | {"settings": "c"}]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert reproduce.still_valid(tmp_path, "quick", console) == ([], {})
    assert "left out 3 of 3 rows" in text.getvalue()  # not dropped in silence
    older = json.loads(json.dumps(now))
    del older["config"]["safety"]["trigger_rate"]  # a version that did not have it
    (tmp_path / "settings.json").write_text(json.dumps({"a": older, "b": other}))
    assert reproduce.still_valid(tmp_path, "quick", console) == (rows[:1], {"a": now})
    assert "left out 2 of 3 rows" in text.getvalue()
    twice = [ROWS[0] | {"settings": "a"}] * 2
    for text, said in (
        ("{broken", "main.jsonl, line 1: not JSON"),
        (json.dumps(rows[0]) + "\n3\n", "line 2: it must be a group of fields; got 3"),
        ("\n".join(map(json.dumps, twice)), "two rows are of bounded_push, uni_o4, seed 0"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=said):
            reproduce.still_valid(tmp_path, "quick", console)


def test_rows_stay_where_only_settings_differ_that_their_method_does_not_read(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    rows = [
        row("bounded_push", method, 0, 1, 50.0) | {"settings": "a"}
        for method in ("uni_o4", "farl", "simple_critic", "mppi", "cpo")
    ]
    (tmp_path / "main.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))

    def kept(group, field, value, **other):
        changed = json.loads(json.dumps(reproduce.settings_of("bounded_push", "quick"))) | other
        changed["config"][group][field] = value
        (tmp_path / "settings.json").write_text(json.dumps({"a": changed}))
        return [r["method"] for r in reproduce.still_valid(tmp_path, "quick", console)[0]]

    assert kept("constraint", "limit", 0.5) == ["uni_o4", "farl", "simple_critic", "mppi"]
    assert kept("safety", "patience", 7) == ["uni_o4", "cpo"]
    assert kept("adaptation", "every", 0) == ["uni_o4", "simple_critic", "cpo"]
    assert kept("risk_critic", "max_risk", 0.5) == ["uni_o4", "farl", "mppi", "cpo"]
    assert kept("mppi", "samples", 8) == ["uni_o4", "farl", "simple_critic", "cpo"]
    assert kept("online", "rollout", 64) == []
    constraint = "constraint", "limit", 0.05  # its default
    assert len(kept(*constraint)) == 5 and kept(*constraint, backend="mjx") == []


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0]) == (3.0, 3.0)
    low, high = bootstrap_interval([0.0, 1.0] * 50)
    assert low == pytest.approx(0.4, abs=0.03) and high == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    ("method", "own", "commit", "words"),
    [
        ("farl", {}, "b" * 40, "run --task"),  # before results named it
        ("cpo", {"git": {"commit": "c" * 40}}, "c" * 40, "reproduce --method cpo --seeds 1 --task"),
        ("cpo", {"git": None}, "b" * 40, "reproduce --method cpo --seeds 1 --task"),
    ],
)
def test_a_row_names_the_commit_and_command_that_made_it(tmp_path, method, own, commit, words):
    git = {"commit": "b" * 40, "dirty": False}
    (tmp_path / "env.json").write_text(json.dumps({"git": git}))
    result = row("bounded_push", method, 3, 5, 9.0) | own
    made = reproduce._row(SimpleNamespace(path=tmp_path), result, "quick")
    assert made["git"] == commit
    assert made["command"] == f"farl {words} bounded_push --preset quick --seed 3"


def test_figures_and_table_come_from_rows_alone(tmp_path):
    text = io.StringIO()
    console = Console(file=text, width=110)
    own = [r | {"task": "mine:Task"} for r in ROWS[:4]]  # a task that the paper does not have
    reproduce.show(ROWS + own, ("failures", "returns"), tmp_path, "farl reproduce", console)
    more = [row("bounded_push", "ppo_lagrangian", seed, 20, 70.0) for seed in (0, 1)]
    reproduce.show(ROWS + more, (), tmp_path, "farl reproduce --all", console)
    assert "90 % [80, 93]" in text.getvalue() and "-25.0" in text.getvalue()
    assert "75 % [60, 80]" in text.getvalue() and "+1.5" in text.getvalue()
    assert "ppo_lagrangian" in text.getvalue()  # nothing is cut where a log is 110 wide
    for name in ("failures", "returns"):
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"


ROBOT_ROWS = [  # ten failing pairs in each failing episode
    row("franka_fragile_push_wall", "uni_o4", 40, 10, 50.0),
    row("franka_fragile_push_wall", "uni_o4", 41, 30, 70.0),
    row("franka_fragile_push_wall", "farl", 40, 4, 60.0),
    row("franka_fragile_push_wall", "farl", 41, 6, 80.0),
    row("franka_fragile_push_wall", "simple_critic", 41, 60, 5.0),
]


def test_the_robots_table_counts_failing_pairs_beside_the_papers():
    paper = read_paper()
    methods = reproduce.group(ROBOT_ROWS)["franka_fragile_push_wall"]
    base, ours, critic = robot_table.lines(
        methods, paper["failing_pairs"]["franka_fragile_push_wall"]
    )
    assert (base.pairs, base.paper_pairs, base.fewer, base.gain) == (200.0, 186, None, 50.0)
    assert (ours.pairs, ours.paper_pairs, ours.fewer) == (50.0, 36, 75.0)
    assert ours.fewer_interval == pytest.approx((60.0, 80.0))  # of either seed alone
    assert ours.gain == 60.0 and ours.gain_interval == (50.0, 70.0)
    assert (critic.seeds, critic.fewer, critic.fewer_interval) == (1, -100.0, None)
    assert robot_table.cells(ours) == (
        *("farl", "2", "50.0", "75 % (60 to 80)", "36", "5.0 of 100", "5.0% of 1,000 steps"),
        *("10.0 -> 70.0", "+60.0 (+50.0 to +70.0)"),
    )
    assert robot_table.cells(critic)[3:5] == ("-100 %", "-")
    said = robot_table.conclusion({"a": methods}, paper)
    assert said.startswith("failing pairs: 75.0 % fewer (95 % over seeds: 60.0 to 80.0)")
    assert "paper, on its robot: 73.1 %" in said and "Return: +60.0 points; paper: 11.3 %" in said


def test_the_robots_figure_has_a_table_and_a_folder_of_its_own(tmp_path, monkeypatch, capsys):
    text = io.StringIO()
    reproduce.show(ROBOT_ROWS[:4], ("robot",), tmp_path, "", Console(file=text, width=140))
    assert "75 % (60 to 80)" in text.getvalue() and "failure episodes" not in text.getvalue()
    assert (tmp_path / "robot.png").read_bytes()[:4] == b"\x89PNG"
    assert reproduce.usual("both") == reproduce.SIMULATED
    usual = reproduce.usual("robot")
    assert (usual.preset, usual.seeds, usual.out) == ("robot", 10, Path("results/robot"))
    assert usual.folder("robot") == usual.out and usual.folder("smoke") == usual.out / "smoke"
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "--figure", "robot", "--stored", "--out", "empty"]) == 2
    assert "empty/main.jsonl has no seed of both uni_o4 and farl" in capsys.readouterr().err
    result = ROBOT_ROWS[4] | {"git": {"commit": "c0ffee"}}
    made = reproduce._row(SimpleNamespace(path=tmp_path), result, "robot")
    assert made["command"].startswith("farl reproduce --figure robot --seeds 1 --task franka_fra")


def test_rows_without_their_counterpart_are_named_and_not_drawn(tmp_path):
    text = io.StringIO()
    alone = [row("bounded_soccer", "farl", 0, 1, 1.0), row("bounded_push", "uni_o4", 7, 900, 1.0)]
    reproduce.show(ROWS + alone, ("failures",), tmp_path, "", Console(file=text, width=110))
    assert "is missing: bounded_push seed 7, bounded_soccer seed 0\n" in text.getvalue()
    assert "75 % [60, 80]" in text.getvalue()  # as without the seed that has no FARL


def test_the_ablations_are_ranked_as_the_paper_ranks_them():
    rival = lambda method, *returns: [
        row("bounded_soccer", method, seed, 1, value) for seed, value in enumerate(returns)
    ]
    methods = {"farl": rival("farl", 90.0, 80.0), "mppi": rival("mppi", 60.0, 70.0)}
    methods["simple_critic"] = rival("simple_critic", 95.0)
    paper = read_paper()["normalized_return"]["bounded_soccer"]
    critic, planner = main_table._rank_lines(methods, paper)
    assert planner.startswith("final return, farl - mppi: +20.0 (95 % over seeds: +10.0 to +30.0)")
    assert planner.endswith("ranks below FARL, as in the paper")
    assert critic.startswith("final return, farl - simple_critic: -5.0 (95 % over seeds: none)")


def test_stored_rows_are_drawn_again_and_other_folders_refused(tmp_path):
    text, settings = io.StringIO(), reproduce.settings_of("bounded_push", "quick")
    draw = lambda name="quick": reproduce.redraw(
        tmp_path, name, ("failures",), "farl reproduce --stored", Console(file=text, width=110)
    )
    with pytest.raises(UserError, match="has no seed of both uni_o4 and farl"):
        draw()
    rows = "".join(json.dumps(r | {"settings": "a"}) + "\n" for r in ROWS[:4])
    (tmp_path / "main.jsonl").write_text(rows)
    (tmp_path / "settings.json").write_text(json.dumps({"a": settings}))
    draw()
    assert "75 % [60, 80]" in text.getvalue() and (tmp_path / "failures.png").is_file()
    assert (tmp_path / "main.jsonl").read_text() == rows  # nothing is run, nothing rewritten
    with pytest.raises(UserError, match="the present settings"):
        draw("paper")


def test_without_rows_of_the_present_settings_older_ones_are_shown_and_the_difference_told(
    tmp_path,
):
    settings = reproduce.settings_of("bounded_push", "quick")
    settings["config"]["adaptation"]["every"] = 7
    rows = "".join(json.dumps(r | {"settings": "a"}) + "\n" for r in ROWS[:4])
    (tmp_path / "main.jsonl").write_text(rows)
    (tmp_path / "settings.json").write_text(json.dumps({"a": settings}))
    console = Console(file=io.StringIO(), width=110)
    assert reproduce.of_other_settings(tmp_path, "paper", console) == []
    assert len(reproduce.of_other_settings(tmp_path, "quick", console)) == 4
    told = "showing those 4, made with adaptation.every 7 (now 1)"
    assert console.file.getvalue().strip() == told


def test_the_papers_numbers_are_those_of_the_paper():
    paper = read_paper()
    pairs = paper["failure_episodes"].values()
    reductions = [100 * (1 - p["farl"] / p["uni_o4"]) for p in pairs]
    np.testing.assert_allclose(reductions, [37.4, 49.6, 21.5, 65.8], atol=0.05)
    pairs = paper["failing_pairs"].values()
    reductions = [100 * (1 - p["farl"] / p["uni_o4"]) for p in pairs]
    np.testing.assert_allclose(reductions, [59.7, 78.9, 80.6], atol=0.05)


def test_stored_rows_come_with_the_package(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    reproduce.bring_stored(tmp_path / "results", Console(width=200))
    assert "copied those of this package" in capsys.readouterr().out
    assert (tmp_path / "results" / "main.jsonl").stat().st_size > 10_000
    (tmp_path / "results" / "main.jsonl").write_text("mine")
    reproduce.bring_stored(tmp_path / "results", Console(width=200))
    assert (tmp_path / "results" / "main.jsonl").read_text() == "mine"


def outcome(seed, failed, episodes):
    return {"seed": seed, "failure_episodes": failed, "episodes": episodes}


def test_rate_ratios_by_hand():
    base = [outcome(0, 20, 100), outcome(1, 20, 100), outcome(7, 3, 10)]
    ours = [outcome(0, 10, 100), outcome(1, 5, 200)]  # seed 7 has no pair
    logs = comparison.log_rate_ratios(base, ours)
    first, second = np.log(10.5 / 20.5), np.log((5.5 / 201) / (20.5 / 101))
    np.testing.assert_allclose(logs, [first, second])
    found, mean = comparison.rate_ratio([logs]), (first + second) / 2
    half = 12.706 * abs(first - second) / 2  # t of one degree of freedom, s / sqrt(2)
    assert found.ratio == pytest.approx(np.exp(mean))
    np.testing.assert_allclose(found.interval, np.exp([mean - half, mean + half]), rtol=1e-3)
    fewer, (low, high) = found.fewer
    assert low < fewer < high < 100.0 and fewer == pytest.approx(100 * (1 - np.exp(mean)))


def test_fewer_episodes_do_not_count_as_fewer_failures():
    base, half = [outcome(s, 40, 399) for s in range(3)], [outcome(s, 20, 199) for s in range(3)]
    found = comparison.rate_ratio([comparison.log_rate_ratios(base, half)])
    assert found.ratio == pytest.approx((20.5 / 200) / (40.5 / 400)) and found.ratio > 1.0
    assert found.interval == pytest.approx((found.ratio, found.ratio))  # the seeds agree exactly


def test_the_rate_ratio_of_several_tasks():
    one, two = np.log([0.5, 0.5]), np.log([0.125, 0.125])
    assert comparison.rate_ratio([one, two]).ratio == pytest.approx(0.25)
    assert comparison.rate_ratio([one, two[:1]]).interval is None
    assert comparison.rate_ratio([one, two[:0]]) is None and comparison.rate_ratio([]) is None
    noisy = np.log([0.1, 1.0])
    alone, both = (comparison.rate_ratio(tasks).interval for tasks in ([noisy], [noisy, noisy]))
    assert np.log(both[1] / both[0]) < np.log(alone[1] / alone[0]) / 2  # more seeds say more


def test_the_interval_holds_the_truth_as_often_as_it_says():
    rng, hits = np.random.default_rng(0), 0
    for _ in range(400):
        tasks = [rng.normal(-1.0, spread, 5) for spread in (0.1, 0.5, 1.0)]
        low, high = comparison.rate_ratio(tasks).interval
        hits += low < np.exp(-1.0) < high
    assert 0.91 <= hits / 400 <= 0.985
