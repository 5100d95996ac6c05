"""The report: known numbers, nothing averaged silently, one page that asks for nothing."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.comparison import difference, pareto_front, ranks, summary
from experiments.report import write as report
from experiments.report.rows import Findings, collect, curve
from experiments.report.sweeps import find_horizons, find_sweeps
from tests.experiments.finished_runs import (
    result,
    sweep_row,
    write,
    write_diagnosis,
    write_film,
    write_horizon,
    write_run,
)

TASK = "bounded_push"
NASTY = 'bad$"><script>alert(1)$^<script>'


def pairs(root, task=TASK, seeds=(0, 1)):
    """Uni-O4 and FARL on two seeds: 100 -> 40 and 300 -> 60 failures, return 90 -> 92 and 101."""
    numbers = {0: (100, 40, 90.0, 92.0), 1: (300, 60, 90.0, 101.0), 2: (10, 10, 50.0, 50.0)}
    for seed in seeds:
        base, ours, before, after = numbers[seed]
        write_run(root / f"seed{seed}", result(task, "uni_o4", seed, base, before))
        write_run(root / f"seed{seed}", result(task, "farl", seed, ours, after))


# ------------------------------------------------------------------------------------- arithmetic


def group(method, numbers, **other):
    return [result(TASK, method, s, f, r, **other) for s, (f, r) in enumerate(numbers)]


def test_a_line_of_the_table_has_means_totals_and_paired_intervals():
    groups = {
        "uni_o4": group("uni_o4", [(100, 90.0), (300, 90.0)]),
        "farl": group("farl", [(40, 92.0), (60, 101.0)]),
    }
    line = summary(groups, "farl")
    assert line["failure_episodes"] == 50 and line["failure_episodes_interval"] == (40, 60)
    assert line["failure_rate"] == pytest.approx(0.5) and line["recovered_share"] == 0.05
    assert line["reduction"] == pytest.approx(75)  # 400 -> 100; by seed 60 and 80 %
    assert line["reduction_interval"] == pytest.approx((60, 80))
    assert line["return_difference"] == pytest.approx(6.5)
    assert line["return_difference_interval"] == pytest.approx((2, 11))
    assert summary(groups, "uni_o4")["reduction"] is None


def test_failures_of_the_offline_phase_are_a_mean_or_unknown():
    rows = [result("t", "farl", seed, 5, 90.0) for seed in (0, 1)]
    of = lambda rows: summary({"farl": rows}, "farl")["offline_failure_episodes"]
    assert (
        of([row | {"offline_failure_episodes": n} for row, n in zip(rows, (30, 50), strict=True)])
        == 40.0
    )
    assert of(rows) is None and of([rows[0] | {"offline_failure_episodes": 3}, rows[1]]) is None


def test_comparisons_use_the_seeds_that_both_have_and_one_seed_has_no_interval():
    groups = {"uni_o4": group("uni_o4", [(100, 90.0), (300, 90.0)])}
    groups["farl"] = group("farl", [(40, 92.0)])
    line = summary(groups, "farl")
    assert line["reduction"] == pytest.approx(60) and line["paired_seeds"] == [0]
    assert line["reduction_interval"] is None and line["final_return_interval"] is None
    assert summary({"farl": groups["farl"]}, "farl")["reduction"] is None


def test_no_share_of_no_failures():
    groups = {"uni_o4": group("uni_o4", [(0, 90.0)]), "farl": group("farl", [(3, 90.0)])}
    assert summary(groups, "farl")["reduction"] is None


@pytest.mark.parametrize(
    ("rival", "verdict", "said"),
    [
        ((80.0, 82.0), "below", "ranks below FARL, as in the paper"),
        ((99.0, 98.0), "above", "ranks above FARL here, unlike the paper"),
        ((80.0, 99.0), "undecided", "the interval contains 0, unlike the paper"),
    ],
)
def test_ranks_say_whether_a_rival_is_below_with_intervals(rival, verdict, said):
    ours = group("farl", [(40, 90.0), (60, 90.0)])
    groups = {"farl": ours, "simple_critic": group("simple_critic", [(40, r) for r in rival])}
    found = difference(ours, groups["simple_critic"])
    assert found.verdict == verdict and found.seeds == (0, 1)
    assert found.interval == pytest.approx((90 - max(rival), 90 - min(rival)))
    critic, mppi = ranks(groups, {"farl": [0, 100], "simple_critic": [0, 64], "mppi": [0, 90]})
    assert said in critic["text"] and critic["paper"] == 36
    assert mppi["ours"] is None and "not measured" in mppi["text"] and mppi["paper"] == 10


def test_with_one_seed_a_rank_has_the_evaluations_interval():
    ours = group("farl", [(40, 90.0)], final_return_se=3.0)
    found = difference(ours, group("mppi", [(40, 80.0)], final_return_se=4.0))
    assert found.interval == pytest.approx((10 - 9.8, 10 + 9.8)) and found.verdict == "below"


def test_the_pareto_front_drops_what_is_beaten():
    points = [(10.0, 50.0), (5.0, 40.0), (7.0, 39.0), (10.0, 45.0), (20.0, 50.0), (30.0, 60.0)]
    assert pareto_front(points) == [1, 0, 5]


# ------------------------------------------------------------------------------------ bad input


def damage(name, text):
    return lambda root: write(root / "seed1" / name, text)


def change(name, **values):
    def apply(root):
        path = root / "seed1" / name
        write(path, json.loads(path.read_text()) | values)

    return apply


LEFT_OUT = {
    "damaged": (
        damage("farl/result.json", '{"task": "bou'),
        "farl",
        "result.json: not JSON",
    ),
    "cut off": (damage("farl/result.json", ""), "farl", "empty or cut off"),
    "no object": (damage("farl/result.json", "[1]"), "farl", "must be a group of fields; got [1]"),
    "no number": (change("farl/result.json", final_return=None), "farl", "final_return must be a"),
    "not finite": (change("farl/result.json", final_return=float("nan")), "farl", "NaN is no JSON"),
    "protocol": (change("config.json", protocol=0), "farl", "protocol must be 1; got 0"),
    "other task": (change("config.json", task="bounded_soccer"), "farl", "mixed folder"),
    "other method": (change("farl/result.json", method="cpo"), "farl", "the result is of cpo"),
    "other preset": (
        change("farl/result.json", preset="paper"),
        "farl",
        "preset is quick in",
    ),
    "budget": (change("farl/result.json", online_steps=20_000), "farl", "another budget: 20,000"),
    "causes": (change("farl/result.json", causes=[1]), "farl", "causes must be a group of"),
    "unfinished": (lambda r: (r / "seed1/farl/result.json").unlink(), "farl", "not finished"),
    "no config": (lambda r: (r / "seed1/config.json").unlink(), "farl", "no config.json"),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_what_cannot_be_used_is_left_out_by_name(tmp_path, kind):
    apply, method, said = LEFT_OUT[kind]
    pairs(tmp_path)
    apply(tmp_path)
    findings = Findings()
    groups = collect([tmp_path], (), findings)
    told = dict(findings.left_out)
    assert said in told[str(tmp_path / "seed1" / method)]
    assert [e.row["seed"] for e in groups[TASK]["farl"]] == [0]
    # and its partner has nothing to be compared with, which is said too
    assert str(tmp_path / "seed1/uni_o4") in told
    assert [e.row["seed"] for e in groups[TASK]["uni_o4"]] == [0]


def test_a_missing_seed_is_left_out_of_the_methods_that_have_it(tmp_path):
    pairs(tmp_path)
    write_run(tmp_path / "seed2", result(TASK, "uni_o4", 2, 9, 9.0))
    write_run(tmp_path / "seed0", result(TASK, "mppi", 0, 9, 9.0))
    findings = Findings()
    groups = collect([tmp_path], (), findings)
    (left,) = findings.left_out
    assert left[0].endswith("seed2/uni_o4") and "seed 2 is missing from farl" in left[1]
    assert len(groups[TASK]["uni_o4"]) == 2
    assert (f"{TASK}, mppi", "lacks seed 1; compared on its other seeds") in findings.notes


def test_other_settings_are_left_out_or_make_groups_of_their_own(tmp_path):
    pairs(tmp_path / "a")
    pairs(tmp_path / "b", seeds=(0,))
    row = result(TASK, "farl", 0, 5, 95.0)
    write_run(tmp_path / "b/seed0", row, {"online.treatment": "masked"})
    findings = Findings()
    groups = collect([tmp_path], (), findings)
    told = dict(findings.left_out)
    assert "online.treatment is masked" in told[str(tmp_path / "b/seed0/farl")]
    assert [e.row["failure_episodes"] for e in groups[TASK]["farl"]] == [40, 60]
    findings = Findings()
    groups = collect([tmp_path], ("online.treatment",), findings)
    (masked,) = groups[TASK]["farl online.treatment=masked"]
    assert masked.row["failure_episodes"] == 5
    assert len(groups[TASK]["farl online.treatment=relabelled"]) == 2
    assert not findings.left_out


def test_runs_of_an_older_version_are_reported_but_not_averaged_with_this_ones(tmp_path):
    older = {"online.success_bonus": 0.0, "safety.max_risk": 1.5}
    for seed in (0, 1):
        for method in ("uni_o4", "farl"):
            row = result("bounded_push", method, seed, 5, 90.0)
            write_run(tmp_path / f"seed{seed}", row, older)
    findings = Findings()
    assert {k: len(v) for k, v in collect([tmp_path], (), findings)["bounded_push"].items()} == {
        "uni_o4": 2,
        "farl": 2,
    }
    assert findings.left_out == []
    write_run(tmp_path / "seed2", result("bounded_push", "farl", 2, 5, 90.0))
    kept = collect([tmp_path], (), findings)["bounded_push"]["farl"]
    assert [entry.row["seed"] for entry in kept] == [0, 1]
    ((_, reason),) = [found for found in findings.left_out if "seed2" in found[0]]
    assert reason.startswith("other settings")


def test_methods_of_different_settings_are_compared_with_a_note(tmp_path):
    pairs(tmp_path)
    row = result(TASK, "mppi", 0, 5, 95.0, backend="mjx")
    write_run(tmp_path / "b", row, {"online.clip": 0.1})
    groups = collect([tmp_path], (), findings := Findings())
    assert "mppi" in groups[TASK]
    said = dict(findings.notes)[f"{TASK}, mppi"]  # the last of that name
    assert (
        said == "other settings than farl: online.clip 0.1 against 0.2, backend mjx against native"
    )


def test_copies_count_once(tmp_path):
    pairs(tmp_path / "a")
    pairs(tmp_path / "b", seeds=(0,))
    findings = Findings()
    groups = collect([tmp_path / "b", tmp_path / "a", tmp_path / "b"], (), findings)
    assert len(groups[TASK]["farl"]) == 2
    assert sorted(name for name, _ in findings.left_out) == [
        str(tmp_path / "a/seed0" / method) for method in ("farl", "uni_o4")
    ]


def test_no_seed_is_averaged_twice_where_a_version_had_another_setting(tmp_path):
    for number in (0, 1):
        row = result(TASK, "farl", number, 40, 92.0)
        write_run(tmp_path / f"old{number}", row, {"safety.retired": True})
    write_run(tmp_path / "new", result(TASK, "farl", 0, 40, 92.0))
    groups = collect([tmp_path], (), findings := Findings())
    assert [entry.row["seed"] for entry in groups[TASK]["farl"]] == [0, 1]
    ((name, text),) = findings.left_out
    assert name == str(tmp_path / "new/farl") and "safety.retired is absent" in text


def test_cost_limits_are_groups_of_constrained_methods_alone(tmp_path):
    for limit, failures in ((0.02, 3), (0.1, 9)):
        limited = {"constraint.limit": limit}
        for method in ("cpo", "uni_o4"):
            row = result(TASK, method, 0, failures if method == "cpo" else 30, 50.0)
            write_run(tmp_path / str(limit), row, limited)
    groups = collect([tmp_path], (), findings := Findings())[TASK]
    assert sorted(groups) == ["cpo constraint.limit=0.02", "cpo constraint.limit=0.1", "uni_o4"]
    assert len(groups["uni_o4"]) == 1 and "the same task" in findings.left_out[0][1]
    rows = {key: [entry.row for entry in entries] for key, entries in groups.items()}
    assert summary(rows, "cpo constraint.limit=0.1")["reduction"] == pytest.approx(70)


def test_empty_and_missing_folders_are_named(tmp_path):
    pairs(tmp_path / "runs")
    (tmp_path / "empty").mkdir()
    findings = Findings()
    collect([tmp_path / "runs", tmp_path / "empty", tmp_path / "gone"], (), findings)
    assert findings.left_out == [
        (str(tmp_path / "empty"), "has no finished run"),
        (str(tmp_path / "gone"), "no such folder"),
    ]


def test_versions_that_differ_are_noted_and_kept(tmp_path):
    pairs(tmp_path, seeds=(0,))
    for method in ("uni_o4", "farl"):
        env = {"git": {"commit": "f" * 40, "dirty": True}, "packages": {"jax": "0.11.0"}}
        write_run(tmp_path / "seed1", result(TASK, method, 1, 10, 50.0), env=env)
    groups = collect([tmp_path], (), findings := Findings())
    assert len(groups[TASK]["farl"]) == 2 and not findings.left_out
    notes = " ".join(text for name, text in findings.notes if name == TASK)
    assert f"git commits, below {tmp_path}: " in notes and "ffffffffffff: seed1/farl" in notes
    assert "package versions" in notes and "uncommitted changes" in notes


def test_versions_are_told_of_folders_named_from_here_and_from_the_root(tmp_path, monkeypatch):
    pairs(tmp_path / "a", seeds=(0,))
    for method in ("uni_o4", "farl"):
        env = {"git": {"commit": "f" * 40, "dirty": False}}
        write_run(tmp_path / "b" / "seed1", result(TASK, method, 1, 10, 50.0), env=env)
    monkeypatch.chdir(tmp_path)
    collect([Path("a"), tmp_path / "b"], (), findings := Findings())
    notes = " ".join(text for _, text in findings.notes)
    assert f"below {tmp_path}: " in notes and "ffffffffffff: b/seed1/farl" in notes


def test_a_result_that_names_its_commit_is_of_that_commit_not_of_its_folders(tmp_path):
    pairs(tmp_path, seeds=(0,))
    later = result(TASK, "farl", 0, 10, 50.0) | {"git": {"commit": "e" * 40, "dirty": False}}
    write_run(tmp_path / "seed0", later)
    collect([tmp_path], (), findings := Findings())
    notes = " ".join(text for name, text in findings.notes if name == TASK)
    assert f"below {tmp_path / 'seed0'}: eeeeeeeeeeee: farl" in notes


def test_damaged_curves_and_environments_cost_themselves_only(tmp_path):
    pairs(tmp_path)
    write(tmp_path / "seed1/env.json", "{")
    write(tmp_path / "seed1/farl/metrics.jsonl", "nonsense\n{}\n")
    strange = {"phase": "online", "step": 1, "failure_episodes": 0, "wall_seconds": 0.0}
    strange = json.dumps(strange | {"eval_return": "high"}) + "\n"
    write(tmp_path / "seed0/uni_o4/metrics.jsonl", strange)
    (tmp_path / "seed1/uni_o4/metrics.jsonl").unlink()
    groups = collect([tmp_path], (), findings := Findings())[TASK]
    for damaged in (groups["farl"][1], *groups["uni_o4"]):
        assert curve(damaged, findings) == []
    assert [row["seed"] for row in curve(groups["farl"][0], findings)] == [0, 0, 0]
    told = [f"{name}: {text}" for name, text in findings.notes]
    assert any("seed1/farl: no learning curve: metrics.jsonl" in t and "line 1" in t for t in told)
    assert any("seed1/uni_o4: no learning curve" in t and "no such file" in t for t in told)
    assert any("seed0/uni_o4: no learning curve" in t and "got 'high'" in t for t in told)
    assert any("seed1/farl: versions and command unknown" in t for t in told)


def test_nothing_to_report_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert main(["report", "empty", "gone", "-o", "out"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "nothing to report: empty: has no finished run; gone: no such folder" in line
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------- sweeps and studies


def sweep_rows(seeds=(0, 1)):
    return [
        sweep_row({"safety.horizon": h}, result(TASK, method, seed, 10 * h + seed, 50.0 + h))
        for h in (3, 6)
        for method in ("uni_o4", "farl")
        for seed in seeds
    ]


def test_a_sweep_is_read_once_and_its_bad_cells_are_named(tmp_path):
    rows = sweep_rows()
    short = rows[0] | {"safety.horizon": 9, "online_steps": 10}
    lines = [json.dumps(r) for r in (*rows, rows[0], {"task": TASK}, short)]
    write(tmp_path / "sweep.jsonl", "\n".join([*lines, "{half"]))
    failed = {"cell": "safety.horizon=12/seed0", "method": "farl", "seed": 0}
    failed |= {"error": "UserError: no", "safety.horizon": 12}
    write(tmp_path / "failed.jsonl", json.dumps(failed) + "\n")
    pairs(tmp_path / "safety.horizon=3")  # a sweep's own folders are not runs besides
    findings = Findings()
    (sweep,) = find_sweeps([tmp_path], findings)
    assert sweep.settings == ("safety.horizon",) and len(sweep.rows) == 8
    cells = sweep.groups()[TASK]
    assert [row["seed"] for row in cells["farl safety.horizon=6"]] == [0, 1]
    assert [row["seed"] for row in cells["uni_o4"]] == [0, 1]  # it has no gate: equal at any H
    assert len(cells) == 3
    told = " | ".join(f"{name}: {text}" for name, text in findings.left_out)
    for said in ("safety.horizon=12/seed0/farl: failed: UserError: no", "seed 0: the same cell"):
        assert said in told
    for said in ("line 10: field", "another budget: 10", "line 12: not JSON"):
        assert said in told
    assert collect([tmp_path], (), Findings()) == {}


def test_a_sweep_of_limits_is_a_panel_of_its_own_with_each_baseline_once(tmp_path):
    limited = lambda limit, *row: sweep_row({"constraint.limit": limit}, result(TASK, *row))
    rows = [limited(x, "cpo", 0, n, 50.0) for x, n in ((0.02, 2), (0.1, 10))]
    rows += [limited(x, "uni_o4", 0, 20, 60.0) for x in (0.02, 0.1)]
    for path, own in (("a", rows), ("b", sweep_rows())):
        write(tmp_path / path / "sweep.jsonl", "\n".join(map(json.dumps, own)))
    sweeps = find_sweeps([tmp_path], Findings())
    panels = report._with_trade_offs(
        {TASK: {"uni_o4": [result(TASK, "uni_o4", 7, 3, 1.0)]}}, sweeps
    )
    assert list(panels) == [TASK, f"{TASK}, {tmp_path / 'a'}"]  # horizons are no trade-off
    assert [row["seed"] for row in panels[TASK]["uni_o4"]] == [7]
    counts = {k: [r["failure_episodes"] for r in own] for k, own in panels.popitem()[1].items()}
    expected = {"cpo constraint.limit=0.02": [2], "cpo constraint.limit=0.1": [10], "uni_o4": [20]}
    assert counts == expected


def test_damaged_studies_are_named(tmp_path):
    write_horizon(tmp_path / "a")
    write(tmp_path / "b/horizon.json", '{"rows": []}')
    studies = find_horizons([tmp_path], findings := Findings())
    assert [path.parent.name for path, _ in studies] == ["a"]
    assert findings.left_out[0][0] == str(tmp_path / "b/horizon.json")


# ----------------------------------------------------------------------------------------- the page

drawn = pytest.mark.timeout(1000)  # ten figures: seconds, but not on a machine with other jobs


class Reader(HTMLParser):
    """What a page would load, its visible text, and its scripts."""

    def __init__(self, text):
        super().__init__()
        self.references, self.text, self.scripts, self.tags = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.scripts += tag == "script"
        names = ("src", "href", "srcset", "poster", "data", "action")
        self.references += [value for name, value in attributes if name in names]

    def handle_data(self, data):
        self.text.append(data)


COMMAND = """
import sys
from experiments.report import write
from experiments.cli import main
code = main()
print("loaded:", *({"mujoco", "envs_mjx"} & {*sys.modules}))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A full report, made by the command on a machine on which JAX could not compute anything."""
    root = tmp_path_factory.mktemp("report")
    runs = root / "runs"
    pairs(runs)
    for seed in (0, 1):
        write_run(runs / f"seed{seed}", result(TASK, "simple_critic", seed, 70, 60.0))
        write_run(runs / f"seed{seed}", result(TASK, NASTY, seed, 7, 6.0))
    write_run(runs / "short", result(TASK, "farl", 1, 1, 1.0, online_steps=5))
    write_film(runs / "seed0/farl")
    write_diagnosis(runs / "seed0/farl")
    write_horizon(runs / "seed0/farl")
    write(root / "sweep/sweep.jsonl", "\n".join(map(json.dumps, sweep_rows())))
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "report", "runs", "sweep", "-o", "out"],
        cwd=root,
        env=os.environ | {"JAX_PLATFORMS": "none_such", "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert "loaded:\n" in done.stdout  # the simulator is not needed either
    page = (root / "out/index.html").read_text()
    return root / "out", page, Reader(page), done


@drawn
def test_the_page_refers_to_nothing_outside(made):
    out, page, reader, _ = made
    assert reader.references
    for reference in reader.references:
        inside = reference.startswith(("data:", "#"))
        assert inside or (out / reference).is_file(), reference
    assert not re.search(r"url\(|@import|https?://", page)
    assert "default-src 'none'" in page


@drawn
def test_every_figure_is_there_as_png_and_pdf(made):
    out, page, reader, _ = made
    names = {path.stem for path in out.glob("*.png")}
    assert names == {path.stem for path in out.glob("*.pdf")}
    assert names == {
        *("failures", "returns", "ablations_returns", "ablations_failures", "pareto", "causes"),
        *("learning_bounded_push", "sweep_1_bounded_push", "horizon_1_bounded_push"),
        "diagnosis_bounded_push_farl",
    }
    assert page.count("data:image/png;base64,") == len(names)
    assert page.count("data:image/gif;base64,") == page.count("data:image/jpeg;base64,") == 1
    assert reader.tags.count("figcaption") == len(names) + 1
    assert page.count("Drawn by <code>farl report runs sweep -o out</code>") == len(names)


@drawn
def test_the_page_says_the_numbers_the_seeds_and_where_they_come_from(made):
    _, _, reader, _ = made
    text = " ".join("".join(reader.text).split())
    assert "75 % fewer failure episodes than Uni-O4 (60 to 80 %), final return +6.5" in text
    assert "ranks below FARL, as in the paper" in text and "+1.5" in text
    assert "farl run --task bounded_push" in text and "0123456789ab" in text
    assert "jax 0.10.2" in text and "2 CPU cores" in text


@drawn
def test_warnings_stand_on_the_page_and_on_the_console_by_name(made):
    _, page, _, done = made
    assert "runs/short/farl</code>: another budget: 5 online steps" in page
    assert "farl: warning: runs/short/farl: another budget: 5 online steps" in done.stderr
    assert "not a method of this version" in page and "1 left out" in done.stdout


@drawn
def test_names_from_files_stay_text(made):
    _, page, reader, _ = made
    assert reader.scripts == 1 and "<script>alert" not in page
    assert "bad$&quot;&gt;&lt;script&gt;alert(1)$^" in page


@drawn
def test_the_rows_behind_the_table_lie_beside_it(made):
    rows = [json.loads(line) for line in (made[0] / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and {row["run"] for row in rows} >= {"runs/seed0/farl"}
