"""Whatever a declaration allows, at its limits, is read and drawn: by evaluate and by a report."""

import itertools
import json
import types
import typing
from typing import Annotated

import pytest

from experiments.cli import main
from experiments.figures import style
from experiments.runs import records
from farl_jax.schema import Length, Others, Range, SchemaError, check, hints_of
from farl_jax.storage.metrics import OnlineRow
from tests.experiments.finished_runs import result, sweep_row, write, write_run

LOW, HIGH, LEAST = "low", "high", "least"
TASK = "bounded_push"


def extreme(hint, which):
    """A value at a limit of a declaration: the lowest, the highest, or the least that is there."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _within(arguments[0], arguments[1:], which)
    if typing.is_typeddict(hint):
        needed = hint.__required_keys__
        every = hints_of(hint)
        names = [name for name in every if name in needed or which is not LEAST]
        return {name: extreme(every[name], which) for name in names}
    if origin is typing.Literal:
        return arguments[0]
    if origin in (typing.Union, types.UnionType):
        none = types.NoneType in arguments and which is LEAST
        return None if none else extreme(arguments[-2 if which is HIGH else 0], which)
    if origin is list:
        return [extreme(arguments[0], which)] * {LOW: 1, HIGH: 3, LEAST: 0}[which]
    if origin is tuple:
        return [extreme(part, which) for part in arguments]
    if origin is dict:
        return {} if which is LEAST else {"a": extreme(arguments[1], which)}
    whole = 2**63 - 1
    numbers = {int: (-whole, whole, 0), float: (-1e300, 1e300, 0.0), bool: (False, True, False)}
    numbers |= {str: ("", "x" * 100, ""), types.NoneType: (None,) * 3}
    if hint not in numbers:
        return json.loads(json.dumps(vars(hint())))  # a dataclass's defaults
    return numbers[hint][(LOW, HIGH, LEAST).index(which)]


def _within(bare, rules, which):
    value = extreme(bare, which)
    for rule in rules:
        if isinstance(rule, Range):
            low, high = rule.low, rule.high
            value = {LOW: low, HIGH: high, LEAST: max(low, 0)}[which]
            value = extreme(bare, which) if value is None else value
            value -= 1 if rule.high_open and value == high else 0
        if isinstance(rule, Length) and len(value) < rule.least:
            part = typing.get_args(bare)[-1:]
            one = [extreme(kind, which) for kind in part] or "x"
            value = {"a": one[0]} if isinstance(value, dict) else one
        if isinstance(rule, Others) and which is not LEAST:
            value |= {f"other{rule.mark}": extreme(rule.kind, which)}
    return value


KINDS = {
    name: getattr(records, name)
    for name in ("Result", "Environment", "SweepRow", "FailedRow", "MainRow", "Study", "Diagnosis")
} | {"OnlineRow": OnlineRow, "Saved": records.Saved, "Paper": records.Paper, "Note": records.Note}


@pytest.mark.parametrize("which", [LOW, HIGH, LEAST])
@pytest.mark.parametrize("name", KINDS)
def test_limits_are_allowed(name, which):
    value = extreme(KINDS[name], which)
    assert json.loads(json.dumps(check(KINDS[name], value, ""), default=vars)) == value
    if isinstance(value, dict) and "seed" in value:
        for seed in (-1, 2**32):
            with pytest.raises(SchemaError, match="seed must be at least 0 and below 4294967296"):
                check(KINDS[name], value | {"seed": seed}, "")


@pytest.mark.timeout(600)  # all figures: seconds, but not on a machine with other jobs
@pytest.mark.parametrize("which", [LOW, HIGH, LEAST])
def test_limits_are_drawn(tmp_path, capsys, which, monkeypatch):
    """As pictures of few points, in one format: what is drawn counts here, not how it looks."""
    monkeypatch.setattr(style, "save", _save)
    for seed, method in itertools.product((0, 1), ("uni_o4", "farl", "cpo")):
        own = {"task": TASK, "method": method, "seed": seed, "preset": "quick"}
        own |= {"backend": "native", "online_steps": 10_000}
        row = extreme(records.Result, which) | own
        row.pop("made_from", None)  # it must be the run's own
        folder = write_run(tmp_path / f"runs/seed{seed}", row, env={"resumed": [{}]})
        curve = [extreme(OnlineRow, w) | {"step": s} for s, w in ((0, LOW), (10_000, which))]
        write(folder / "metrics.jsonl", "".join(json.dumps(r) + "\n" for r in curve))
    write(tmp_path / "runs/seed0/farl/diagnosis.json", extreme(records.Diagnosis, which))
    write(tmp_path / "runs/seed0/farl/horizon.json", extreme(records.Study, which))
    assert main(["evaluate", str(tmp_path / "runs/seed0")]) == 0
    cells = [{"a.b": extreme(records.Setting, w), "a.c": c} for c, w in enumerate((LOW, HIGH))]
    rows = [sweep_row(cell, result(TASK, "cpo", 0, 3, 5.0)) for cell in cells]
    rows.append(extreme(records.SweepRow, which) | {"a.b": 1e38, "online_steps": 10_000})
    write(tmp_path / "sweep/sweep.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    words = ["report", str(tmp_path / "runs"), str(tmp_path / "sweep")]
    capsys.readouterr()
    assert main([*words, "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err.splitlines()
    assert not [line for line in said if "uncommitted changes" not in line]  # none is left out
    figures = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert len([name for name in figures if name.startswith(("diagnosis_", "horizon_"))]) == 2
    assert {"failures", "returns", "pareto", f"learning_{TASK}", f"sweep_1_{TASK}"} <= figures


def _save(figure, folder, name):
    figure.set_dpi(40)
    figure.savefig(folder / f"{name}.png")
    return folder / f"{name}.png"
