"""`farl sweep`: ordinary runs over a grid of settings and seeds, and one table of them.

Runs whose settings differ only in what the online phase reads take demonstrations and offline
checkpoint from one base run, `<out>/base/<settings>/seed<N>`.
"""

import dataclasses
import itertools
import json
import os
import shutil
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import run_offline, signals
from experiments.arguments import SweepArgs
from experiments.judge import Judge
from experiments.paper_figures import bootstrap_interval
from experiments.presets import RunSettings, check, parse_setting, preset, with_settings
from experiments.run import Run, start_run
from experiments.run_online import find_method, fine_tune
from experiments.runtime import UserError, read_json, write_rows
from farl_jax import checkpoint, metrics
from farl_jax.methods import METHODS

CALIBRATION = (
    *("horizon", "hold", "gamma_risk"),
    *("target_recall", "target_trigger_rate", "lead_time"),
)
"""Safety settings that the offline phase reads, to calibrate the eps_safe of max_risk = None."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run folder of a sweep."""

    swept: Mapping[str, Any]
    settings: RunSettings
    path: Path
    name: str


def read_fields(words: Sequence[str]) -> dict[str, list[Any]]:
    """Words "group.field=value,value" -> field -> values of the field's type, each once."""
    fields: dict[str, list[Any]] = {}
    for word in words:
        name, equals, texts = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UserError(f"--set {word}: expected FIELD=VALUE,VALUE")
        if name in fields:
            raise UserError(f"--set {name} is given twice: list all its values once")
        values = [parse_setting(name, t.strip()) for t in texts.split(",") if t.strip()]
        if not values:
            raise UserError(f"--set {name} has no value: give at least one")
        if twice := [v for i, v in enumerate(values) if v in values[:i]]:
            raise UserError(f"--set {name}: {_text(twice[0])} is given twice")
        fields[name] = values
    if not fields:
        raise UserError("nothing to sweep: give at least one --set FIELD=VALUE,VALUE")
    return fields


def expand(fields: Mapping[str, Sequence[Any]], *, paired: bool) -> list[dict[str, Any]]:
    """All combinations of the fields' values, the last field varying fastest.

    `paired` combines the first values of all fields, then the second ones, and so on.
    """
    if paired and len({len(values) for values in fields.values()}) > 1:
        counts = ", ".join(f"{name} {len(values)}" for name, values in fields.items())
        raise UserError(f"--list pairs values one by one, but {counts}: give as many of each")
    combine = zip if paired else itertools.product
    return [dict(zip(fields, values, strict=True)) for values in combine(*fields.values())]


def plan(args: SweepArgs) -> list[Cell]:
    """All run folders of a sweep, checked before anything is written."""
    for number, name in ((args.seeds, "--seeds"), (len(args.method), "--method")):
        if number < 1:
            raise UserError(f"{name}: at least 1 is needed")
    for method in args.method:
        find_method(method)
    config, cells = preset(args.preset, args.task), []
    for swept in expand(read_fields(args.set), paired=args.list):
        label = ",".join(f"{name}={_text(value)}" for name, value in swept.items())
        changed = with_settings(config, swept)
        check(RunSettings(args.task, args.preset, args.seed, args.backend, changed))
        for seed in range(args.seed, args.seed + args.seeds):
            settings = RunSettings(args.task, args.preset, seed, args.backend, changed)
            name = f"{label}/seed{seed}"
            cells.append(Cell(swept, settings, args.out / name, name))
    for cell in cells:
        saved = cell.path / "config.json"
        if saved.is_file() and RunSettings.from_json(read_json(saved)) != cell.settings:
            raise UserError(f"{cell.path}: holds a run of other settings; choose another --out")
    return cells


def base_settings(settings: RunSettings) -> RunSettings:
    """Settings of the run that `settings` may take demonstrations and offline checkpoint from.

    What only the online phase reads is the preset's: the groups online and adaptation, and safety,
    of which the calibration settings count where eps_safe is the calibrated one.
    """
    default, own = preset(settings.preset, settings.task), settings.config
    safety = default.safety
    if own.safety.max_risk is None:
        read = {name: getattr(own.safety, name) for name in CALIBRATION}
        safety = dataclasses.replace(safety, **read)
    parts = {"online": default.online, "adaptation": default.adaptation, "safety": safety}
    return dataclasses.replace(settings, config=dataclasses.replace(own, **parts))


def ungated_settings(settings: RunSettings) -> RunSettings:
    """`settings` without what a method that has no gate does not read."""
    default = preset(settings.preset, settings.task)
    parts = {"adaptation": default.adaptation, "safety": default.safety}
    return dataclasses.replace(settings, config=dataclasses.replace(settings.config, **parts))


class Sweep:
    """The cells of one command, and what they share."""

    def __init__(self, args: SweepArgs, command: str, console: Console) -> None:
        """Plan and check; nothing is written."""
        self.cells = plan(args)
        self.args, self.command, self.console = args, command, console
        self.rows: list[Row] = []
        self.failed: list[Row] = []
        self._bases: dict[RunSettings, Path | Exception] = {}
        self._judges: dict[Any, Judge] = {}
        self._ungated: dict[tuple[str, RunSettings], Path] = {}

    def run(self) -> list[Row]:
        """Run what is not finished; the rows of what failed. Writes both tables after each cell."""
        self.args.out.mkdir(parents=True, exist_ok=True)
        for number, cell in enumerate(self.cells, 1):
            self.console.print(f"[bold]{cell.name}[/bold], {number} of {len(self.cells)}")
            for method in self.args.method:
                try:
                    result = self._result(cell, method)
                    self.rows.append(self._row(cell, result))
                except Exception as error:  # whatever it is, it costs this one
                    if signals.requested():
                        raise
                    self._fail(cell, method, error)
                self._write()
        return self.failed

    def _result(self, cell: Cell, method: str) -> Row:
        """The finished result of a method in a cell, trained if there is none yet."""
        found = cell.path / method / "result.json"
        twin = None if METHODS[method].gated else (method, ungated_settings(cell.settings))
        if not found.is_file():
            base = self._base(cell)
            run, folder = start_run(cell.path, cell.settings, self.console, resume=True)
            with folder:
                take(base, run, ("demos", "offline"))
                if twin in self._ungated and not found.parent.exists():
                    _copy(self._ungated[twin], found.parent)
                    run.say(f"online {method}: as in {self._ungated[twin].parent}")
                run = dataclasses.replace(run, resume=True)
                fine_tune([run], method, self._judge(run))
        if twin:
            self._ungated.setdefault(twin, found.parent)
        return read_json(found)

    def _base(self, cell: Cell) -> Path:
        """The base run of a cell, made on first use; one that failed is not tried again."""
        settings = base_settings(cell.settings)
        if settings not in self._bases:
            path = self.args.out / "base" / _base_name(settings)
            try:
                run, folder = start_run(path, settings, self.console, resume=True)
                with folder:
                    run_offline.demos(run)
                    run_offline.fit(run)
                self._bases[settings] = path
            except Exception as error:
                self._bases[settings] = error
        made = self._bases[settings]
        if isinstance(made, Exception):
            raise made
        return made

    def _judge(self, run: Run) -> Judge:
        """One for all cells that differ only in the gate's traced numbers, or in seed."""
        config = run.settings.config
        traced = dataclasses.replace(config.safety, gamma_risk=0.0, max_risk=None)
        key = dataclasses.replace(config, safety=traced)
        if key not in self._judges:
            self._judges[key] = Judge(run, config)
        return self._judges[key]

    def _row(self, cell: Cell, result: Row) -> Row:
        git = (read_json(cell.path / "env.json").get("git") or {}).get("commit")
        where = {"cell": cell.name, "command": self.command, "git": git}
        return dict(cell.swept) | result | where

    def _fail(self, cell: Cell, method: str, error: Exception) -> None:
        line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        self.console.print(f"  {method} failed: {line}", style="red", markup=False, soft_wrap=True)
        told = {"error": line, "traceback": "".join(traceback.format_exception(error))}
        where = {"cell": cell.name, "method": method, "seed": cell.settings.seed}
        self.failed.append(where | dict(cell.swept) | told)

    def _write(self) -> None:
        write_rows(self.args.out / "sweep.jsonl", self.rows)
        failed = self.args.out / "failed.jsonl"
        if self.failed:
            write_rows(failed, self.failed)
        else:
            failed.unlink(missing_ok=True)


def sweep(args: SweepArgs, command: str, console: Console) -> list[Row]:
    """Run a sweep and print its table; the rows of what failed."""
    cells = Sweep(args, command, console)
    failed = cells.run()
    if cells.rows:
        console.print(summary(cells.rows, list(cells.cells[0].swept)))
    console.print(f"table: {args.out / 'sweep.jsonl'}", highlight=False, soft_wrap=True)
    for row in failed:
        line = f"failed: {row['cell']} {row['method']}: {row['error']}"
        console.print(line, style="red", markup=False, soft_wrap=True)
    return failed


def take(base: Path, run: Run, names: Sequence[str]) -> None:
    """Give a run that lacks them the base run's folders `names`; strict about settings."""
    for name in names:
        if not (run.path / name).exists():
            _copy(base / name, run.path / name)
    if not (run.path / metrics.FILE).exists():
        shutil.copyfile(base / metrics.FILE, run.path / metrics.FILE)
    saved = checkpoint.read_metadata(run.path / "offline")["settings"]
    if base_settings(RunSettings.from_json(saved)) != base_settings(run.settings):
        raise UserError(f"{run.path / 'offline'}: made with other settings; choose another --out")


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, all of it or nothing; by hard links, where the disk allows."""
    temporary = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_link)
    temporary.rename(target)


def _link(source: str, target: str) -> None:
    """A hard link is as good as a copy: but for metrics, files are replaced, not written into."""
    if Path(source).name == metrics.FILE:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _text(value: Any) -> str:
    """A value as it stands in folder names and tables."""
    return json.dumps(value).strip('"').replace("null", "none")


def _base_name(settings: RunSettings) -> str:
    """Where a base lies: named by what differs from the preset."""
    default = dataclasses.asdict(preset(settings.preset, settings.task))
    own = dataclasses.asdict(settings.config)
    differing = [
        f"{group}.{name}={_text(value)}"
        for group, values in own.items()
        for name, value in values.items()
        if value != default[group][name]
    ]
    return f"{','.join(differing) or settings.preset}/seed{settings.seed}"


def summary(rows: Sequence[Row], fields: Sequence[str]) -> Table:
    """Means over seeds by setting and method, with 95 % limits where there are several seeds."""
    table = Table(title="mean over seeds [95 %]")
    for name in (*fields, "method", "seeds"):
        table.add_column(name.replace(".", ".\n"), justify="right")
    for name in ("failure\nepisodes", "of", "return", "success"):
        table.add_column(name, justify="right")
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        key = (*(_text(row[name]) for name in fields), row["method"])
        groups.setdefault(key, []).append(row)
    for key, own in groups.items():
        cells = []
        for name, shape in (
            ("failure_episodes", ".0f"),
            ("episodes", ".0f"),
            ("final_return", ".1f"),
            ("final_success", ".2f"),
        ):
            values = [row[name] for row in own]
            low, high = bootstrap_interval(values)
            limits = f" [{low:{shape}}, {high:{shape}}]" if low != high else ""
            cells.append(f"{np.mean(values):{shape}}{limits}")
        table.add_row(*key, str(len(own)), *cells)
    return table
