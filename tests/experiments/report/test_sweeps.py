"""A sweep along one axis, and its figure."""

import pytest

from experiments.report.figures import pareto_figure, sweep_figure
from experiments.report.sweeps import SweepTable, _budget
from tests.experiments.finished_runs import result

TASK = "bounded_push"


def sweep_of(cells, methods=("uni_o4", "farl"), seeds=(0, 1)):
    """A sweep whose rows have failures 100 a cell, 10 a method, 1 a seed."""
    rows = [
        cell | result(TASK, method, seed, 100 * i + 10 * j + seed, 50.0 + i)
        for i, cell in enumerate(cells)
        for j, method in enumerate(methods)
        for seed in seeds
    ]
    return SweepTable("out", tuple(sorted(cells[0])), tuple(rows))


def numbers(lines):
    return {
        key: {x: [row["failure_episodes"] for row in own.values()] for x, own in cells.items()}
        for key, cells in lines.items()
    }


def test_paired_settings_are_one_axis():
    cells = [{"safety.horizon": h, "world_model.train_horizon": h + 1} for h in (3, 8)]
    across = sweep_of(cells).across(TASK)
    assert across.label == "safety.horizon with world_model.train_horizon" and not across.ticks
    assert numbers(across.lines) == {
        "uni_o4": {3: [0, 1], 8: [100, 101]},
        "farl": {3: [10, 11], 8: [110, 111]},
    }


def test_a_grid_is_a_line_for_each_other_setting_that_the_method_reads():
    """The axis is what takes most numbers; without a gate one threshold's rows stand for all."""
    cells = [
        {"safety.max_risk": risk, "world_model.train_horizon": h}
        for risk in (0.1, 0.2)
        for h in (4, 9, 13)
    ]
    across = sweep_of(cells).across(TASK)
    assert across.label == "world_model.train_horizon"
    assert numbers(across.lines) == {
        "uni_o4": {4: [0, 1], 9: [100, 101], 13: [200, 201]},
        "farl safety.max_risk=0.1": {4: [10, 11], 9: [110, 111], 13: [210, 211]},
        "farl safety.max_risk=0.2": {4: [310, 311], 9: [410, 411], 13: [510, 511]},
    }


def test_settings_that_are_no_numbers_are_places_by_name():
    words = (("masked", "mlp"), ("executed", "mlp"), ("masked", "identity"))
    cells = [{"online.treatment": a, "world_model.encoder": b} for a, b in words]
    across = sweep_of(cells, methods=("farl",)).across(TASK)
    assert across.ticks == ("masked\nmlp", "executed\nmlp", "masked\nidentity")
    assert numbers(across.lines) == {"farl": {0: [0, 1], 1: [100, 101], 2: [200, 201]}}
    line = sweep_figure(sweep_of(cells, methods=("farl",)), TASK, "").axes[0].get_lines()[0]
    assert line.get_linestyle() == "None"  # nothing lies between two names
    calibrated = [{"safety.max_risk": risk} for risk in (None, 0.1)]
    assert sweep_of(calibrated).across(TASK).ticks == ("none", "0.1")


def inside(figure):
    """Whether the legend and all that is drawn lie within the figure, and apart from each other."""
    figure.canvas.draw()
    page, (legend,) = figure.bbox, figure.legends
    box = legend.get_window_extent()
    axes = [axis.get_tightbbox() for axis in figure.axes]
    within = lambda b: page.x0 <= b.x0 and b.x1 <= page.x1 and page.y0 <= b.y0 and b.y1 <= page.y1
    return within(box) and all(map(within, axes)) and not any(box.overlaps(b) for b in axes)


def test_many_lines_with_long_names_leave_room_for_the_legend():
    cells = [
        {"safety.horizon": h, "world_model.encoder": e, "online.treatment": t}
        for h in (3, 6, 12)
        for e in ("mlp", "identity")
        for t in ("relabelled", "executed", "masked")
    ]
    figure = sweep_figure(sweep_of(cells), TASK, "farl report")
    assert inside(figure)
    assert len(figure.legends[0].get_texts()) == 12


@pytest.mark.parametrize("values", [(0.001, 0.1), (2, 20)])
def test_axes_name_the_swept_values_and_show_every_mean(values):
    sweep = sweep_of([{"safety.max_risk": v} for v in values], methods=("farl",))
    figure = sweep_figure(sweep, TASK, "farl report")
    figure.canvas.draw()
    failures, returns = figure.axes
    assert [t.get_text() for t in returns.get_xticklabels()] == [f"{v:g}" for v in values]
    for axis, means in ((failures, (0.5, 100.5)), (returns, (50.0, 51.0))):
        line = axis.get_lines()[0]
        assert line.get_ydata() == pytest.approx(means)
        assert all(axis.bbox.contains(*axis.transData.transform(p)) for p in line.get_xydata())


def test_limits_are_points_of_one_legend_entry():
    methods = ("uni_o4", "farl", "ppo_lagrangian", "p3o", "cpo")
    cells = [{"constraint.limit": limit} for limit in (0.02, 0.05, 0.1)]
    groups = sweep_of(cells, methods).groups()
    assert len(groups[TASK]) == 2 + 3 * 3
    figure = pareto_figure({f"{TASK}, a/sweep": groups[TASK]}, "farl report")
    assert inside(figure)
    assert len(figure.legends[0].get_texts()) == len(methods)
    beside = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(beside) == sorted(3 * ["0.02", "0.05", "0.1"])


def test_a_budget_in_episodes_is_one_budget_whatever_its_steps():
    known = {"preset": "robot", "episodes": 50, "online_steps": 4321}
    assert _budget(known) == (50, "episodes")
    assert _budget(known | {"preset": "quick"}) == (4321, "online steps")
    assert _budget(known | {"preset": "quick", "online.episodes": 50}) == (50, "episodes")
    assert _budget(known | {"online.episodes": None}) == (4321, "online steps")
    assert _budget(known | {"preset": "of another version"}) == (4321, "online steps")
