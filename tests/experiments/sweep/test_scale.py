"""A thousand runs: planned in seconds, and their table is gathered in seconds."""

import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from experiments.arguments import SweepArgs
from experiments.sweep import forecast
from experiments.sweep.cells import TABLE, Sweep
from experiments.sweep.command import summary
from tests.experiments.finished_runs import result

RISKS = ",".join(f"{0.001 * number:.3f}" for number in range(1, 21))
GRID = (f"safety.max_risk={RISKS}", "safety.horizon=0,1,2,3,4")
PLAN_SECONDS = 10.0
"""What a user may have to wait for the first line of a sweep of 1,000 runs."""


def plan(out: Path) -> tuple[Sweep, float]:
    args = SweepArgs(out=out, set=GRID, seeds=10, preset="smoke", method=("farl",), insist=True)
    started = time.process_time()
    sweep = Sweep(args, "farl sweep", Console(quiet=True), alone=False)
    return sweep, time.process_time() - started


def finish(sweep: Sweep) -> None:
    """The files of every cell as training leaves them."""
    saved = {}
    for cell in sweep.cells:
        method = cell.path / "farl"
        method.mkdir(parents=True)
        row = result("bounded_push", "farl", cell.settings.seed, 1, 50.0, preset="smoke")
        (method / "result.json").write_text(json.dumps(row))
        config = id(cell.settings.config)
        if config not in saved:
            saved[config] = cell.settings.to_json()
        settings = saved[config] | {"seed": cell.settings.seed}
        (cell.path / "config.json").write_text(json.dumps(settings))
        (cell.path / "env.json").write_text("{}")


@pytest.mark.timeout(300)
def test_a_thousand_runs_are_planned_gone_on_with_and_gathered(tmp_path):
    sweep, seconds = plan(tmp_path)
    assert len(sweep.cells) == 1000 and seconds < PLAN_SECONDS
    bases, cells = sweep.missing()
    assert len(cells) == 1000
    assert len(bases) == 10  # one offline phase a seed: max_risk and horizon are the gate's alone
    started = time.process_time()
    (cost,) = forecast.tell(sweep, sweep.args, sweep.console)
    assert cost.runs == 1000 and cost.seconds > 0
    assert time.process_time() - started < PLAN_SECONDS
    finish(sweep)
    again, seconds = plan(tmp_path)
    assert seconds < PLAN_SECONDS
    started = time.process_time()
    assert again.missing() == ([], []) and again.run() == []
    assert time.process_time() - started < 60.0
    rows = (tmp_path / TABLE).read_text().splitlines()
    assert [json.loads(row)["cell"] for row in rows] == [cell.name for cell in sweep.cells]
    table = summary(again.rows, list(again.cells[0].swept))
    assert table.row_count == 100
