"""`farl sweep`: runs over a grid of settings and seeds, and one table of them.

Runs that differ only in online settings share the demonstrations and offline checkpoint of one base
run, `<out>/base/<settings>/seed<N>`. A method is done in a cell when its `result.json` exists. That
file is written last, whole or not at all. This module makes cells one after the other.
`experiments.sweep.fleet` makes them in other processes, and then this one only collects.
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from experiments.arguments import SweepArgs
from experiments.phases import offline as run_offline
from experiments.phases.judge import Judge
from experiments.phases.online import TRACED_SETTINGS, fine_tune
from experiments.process import signals
from experiments.process.machine import describe_environment
from experiments.process.outputs import write_json, write_rows
from experiments.runs.files import RESULT
from experiments.runs.folder import ENVIRONMENT
from experiments.runs.presets import RunSettings
from experiments.runs.provenance import base_settings, read_result, settings_read
from experiments.runs.records import Environment, Note
from experiments.runs.run import Run, start_run
from experiments.sweep.grid import (
    Cell,
    base_name,
    holds,
    label_of,
    plan,
)
from experiments.sweep.notes import SILENT, Row, Unmade, described
from experiments.sweep.sharing import _copy, take
from farl_jax.config import FarlConfig
from farl_jax.methods import METHODS
from farl_jax.storage import checkpoint, json_files

TABLE, MANIFEST = "sweep.jsonl", "manifest.json"


class Sweep:
    """The cells of one command, and their shared runs."""

    def __init__(
        self, args: SweepArgs, command: str, console: Console, *, alone: bool = True
    ) -> None:
        """Plan and check, but write nothing. `alone`: this process makes all, else `make` does."""
        self.cells = plan(args)
        self.args, self.command, self.console = args, command, console
        self.groups: dict[str, list[Cell]] = {}
        """Work of one process at a time: a cell, or with --together all that may train together."""
        for cell in self.cells:
            self.groups.setdefault(self._group(cell), []).append(cell)
        self.rows: list[Row] = []
        self.failed: list[Row] = []
        self._alone = alone
        self._bases: dict[RunSettings, Path | Exception] = {}
        self._judges: dict[Any, Judge] = {}
        self._equal: dict[str, dict[str, list[Cell]]] = {}

    def run(self) -> list[Row]:
        """Make or collect all cells, and return the rows of failures.

        Both tables are written once they have all finished groups, and then after each group that
        is made, so that no row is lost.
        """
        finished = {name: self._whole(cells) for name, cells in self.groups.items()}
        finished_first = sorted(self.groups.items(), key=lambda own: not finished[own[0]])
        for number, (name, cells) in enumerate(finished_first, 1):
            if self._alone:
                of = f", {number} of {len(self.groups)}"
                self.console.print(Text.assemble((name, "bold"), of))
            for method in self.args.method:
                told = None
                try:
                    self._finish(cells, method, train=self._alone)
                except Exception as error:  # any error costs only this group
                    if signals.requested():
                        raise
                    told = self._tell(f"{name} {method}", error)
                for cell in cells:
                    self._gather(cell, method, told)
                if number >= sum(finished.values()) and self._alone:
                    self._write()
        self._write()
        self.write_manifest()
        return self.failed

    def missing(self) -> tuple[list[str], list[str]]:
        """Names of the base runs and groups that are not made yet."""
        methods = self.args.method
        unfinished = [c for c in self.cells if any(not self._done(c, m) for m in methods)]
        bases = {base_name(own): own for own in (base_settings(c.settings) for c in unfinished)}
        todo = [name for name, own in bases.items() if not self._base_done(own)]
        return todo, [name for name in self.groups if any(self._own(name, m) for m in methods)]

    def left(self) -> dict[str, list[int]]:
        """Method -> sizes of the groups that it must still train, one program each."""
        sizes = {m: [len(self._own(name, m)) for name in self.groups] for m in self.args.method}
        return {method: [size for size in own if size] for method, own in sizes.items()}

    def make(self, name: str) -> bool:
        """Make a base run or a group. On failure leave a note for `run`, and return False."""
        bases = {base_name(own): own for own in (base_settings(c.settings) for c in self.cells)}
        if name in bases:
            return self._noted(name, lambda: self._make_base(bases[name]))
        made = [
            self._noted(f"{name}/{method}", lambda m=method, own=own: self._finish(own, m))
            for method in self.args.method
            if (own := self._own(name, method))
        ]
        return all(made)

    def write_manifest(self) -> None:
        """Write `<out>/manifest.json`: all cells, their settings, and their finished methods."""
        cells = [
            {
                "cell": cell.name,
                "swept": dict(cell.swept),
                "base": base_name(base_settings(cell.settings)),
                "done": [method for method in self.args.method if self._done(cell, method)],
                "settings": cell.settings.to_json(),
            }
            for cell in self.cells
        ]
        about = {"command": self.command, "git": describe_environment()["git"]}
        body = about | {"methods": list(self.args.method), "cells": cells}
        self.args.out.mkdir(parents=True, exist_ok=True)
        write_json(self.args.out / MANIFEST, body)

    def _group(self, cell: Cell) -> str:
        """The cell's name, or with --together the name for all its seeds and thresholds."""
        if not self.args.together:
            return cell.name
        return (
            label_of({k: v for k, v in cell.swept.items() if k not in TRACED_SETTINGS})
            or "together"
        )

    def _done(self, cell: Cell, method: str) -> bool:
        return (cell.path / method / RESULT).exists()

    def _whole(self, cells: Sequence[Cell]) -> bool:
        return all(self._done(cell, method) for cell in cells for method in self.args.method)

    def _own(self, name: str, method: str) -> list[Cell]:
        """The cells of a group that a method must still train."""
        todo = (cell for cell in self.groups[name] if not self._done(cell, method))
        return [cell for cell in todo if self._owner(cell, method) is cell]

    def _owner(self, cell: Cell, method: str) -> Cell:
        """The cell whose result this one shares: the method does not read their difference."""
        if method not in self._equal:
            groups: dict[RunSettings, list[Cell]] = {}
            for other in self.cells:
                read = settings_read(other.settings, METHODS[method])
                groups.setdefault(read, []).append(other)
            self._equal[method] = {c.name: own for own in groups.values() for c in own}
        equal = self._equal[method][cell.name]
        return next((other for other in equal if self._done(other, method)), equal[0])

    def _finish(self, cells: Sequence[Cell], method: str, *, train: bool = True) -> None:
        """Copy equivalent cells' results, or train."""
        owners = [cell for cell in cells if self._owner(cell, method) is cell]
        for some in (owners, [cell for cell in cells if cell not in owners]):
            if todo := [cell for cell in some if not self._done(cell, method)]:
                self._make_in_step(todo, method, train=train)

    def _make_in_step(self, todo: Sequence[Cell], method: str, *, train: bool) -> None:
        bases = [self._base(cell) for cell in todo]
        with ExitStack() as held:
            runs = []
            for cell, base in zip(todo, bases, strict=True):
                owner = self._owner(cell, method)
                shared = owner is not cell and self._done(owner, method)
                if not (train or shared):
                    raise Unmade(self._note(f"{self._group(owner)}/{method}"))
                run, folder = start_run(cell.path, cell.settings, self.console, resume=True)
                held.enter_context(folder)
                take(base, run, ("demos", "offline"))
                if shared:
                    shutil.rmtree(run.path / method, ignore_errors=True)  # unfinished
                    _copy(owner.path / method, run.path / method)
                    run.say(f"online {method}: same as in {owner.path}")
                elif not self._done(cell, method):  # another process may have made it
                    runs.append(dataclasses.replace(run, resume=True, track=self.args.track))
            self._train(runs, method)

    def _train(self, runs: Sequence[Run], method: str) -> None:
        """Train together, unless a kill left them at different steps."""
        steps = {checkpoint.latest_step(run.path / method / "checkpoints") for run in runs}
        for some in [runs] if len(steps) == 1 else [[run] for run in runs]:
            fine_tune(some, method, self._judge(some[0]))
            for run in some:
                run.say(f"finished: {run.path.relative_to(self.args.out)} {method}")

    def _base(self, cell: Cell) -> Path:
        """The base run of a cell, made at first use. One that failed is not tried again."""
        settings = base_settings(cell.settings)
        if settings not in self._bases:
            try:
                if not (self._alone or self._base_done(settings)):
                    raise Unmade(self._note(base_name(settings)))
                self._bases[settings] = self._make_base(settings)
            except Exception as error:
                self._bases[settings] = error
        made = self._bases[settings]
        if isinstance(made, Exception):
            raise made
        return made

    def _make_base(self, settings: RunSettings) -> Path:
        path = self.args.out / base_name(settings)
        if not self._base_done(settings):
            run, folder = start_run(path, settings, self.console, resume=True)
            run = dataclasses.replace(run, track=self.args.track)
            with folder:
                run_offline.demos(run)
                run_offline.fit(run)
        return path

    def _base_done(self, settings: RunSettings) -> bool:
        """Whether a base run is finished. Then no process writes to it, and it needs no lock."""
        path = self.args.out / base_name(settings)
        return holds(path, settings) and checkpoint.latest_step(path / "offline") is not None

    def _judge(self, run: Run) -> Judge:
        """One judge for all cells that differ only in seed, traced numbers, or learning."""
        config, default = run.settings.config, FarlConfig()
        parts = {name: getattr(default, name) for name in ("adaptation", "constraint")}
        parts["safety"] = dataclasses.replace(config.safety, max_risk=None)
        key = dataclasses.replace(config, **parts)
        if key not in self._judges:
            self._judges[key] = Judge(run, config)
        return self._judges[key]

    def _row(self, cell: Cell, method: str) -> Row:
        result = read_result(cell.path, cell.settings, method)
        about = json_files.read(cell.path / ENVIRONMENT, Environment)
        git = (about.get("git") or {}).get("commit")
        where = {"cell": cell.name, "command": self.command, "git": git}
        return dict(cell.swept) | result | where

    def _gather(self, cell: Cell, method: str, told: Row | None) -> None:
        """Add a row to the results or to the failures. `told` is the error, if there is one."""
        if self._done(cell, method):
            try:
                self.rows.append(self._row(cell, method))
                return
            except Exception as error:  # a damaged file
                told = self._tell(f"{cell.name} {method}", error)
        where = {"cell": cell.name, "method": method, "seed": cell.settings.seed}
        self.failed.append(where | dict(cell.swept) | (told or {"error": SILENT}))

    def _tell(self, what: str, error: Exception) -> Row:
        """Print an error, and return it as a row."""
        told = error.told if isinstance(error, Unmade) else described(error)
        line = f"  {what} failed: {told['error']}"
        self.console.print(line, style="red", markup=False, soft_wrap=True)
        return told

    def _noted(self, name: str, do: Callable[[], Any]) -> bool:
        """Do it. On failure write `<out>/failed/<name>.json` and return False."""
        note = self.args.out / "failed" / f"{name}.json"
        note.unlink(missing_ok=True)
        try:
            do()
        except Exception as error:
            if signals.requested():
                raise
            note.parent.mkdir(parents=True, exist_ok=True)
            write_json(note, self._tell(name, error))
            return False
        return True

    def _note(self, name: str) -> Row:
        note = self.args.out / "failed" / f"{name}.json"
        told = {"error": f"{name}: {SILENT}"}
        return json_files.read(note, Note) if note.exists() else told

    def _write(self) -> None:
        """Write both tables, in the order of the plan."""
        place = {c.name: n for n, cells in enumerate(self.groups.values()) for c in cells}
        for rows in (self.rows, self.failed):
            rows.sort(key=lambda row: place[row["cell"]])
        write_rows(self.args.out / TABLE, self.rows)
        failed = self.args.out / "failed.jsonl"
        if self.failed:
            write_rows(failed, self.failed)
        else:
            failed.unlink(missing_ok=True)
