"""A report's readers of sweep tables and horizon studies."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.report.files import HORIZONS, SWEEP, check_found, find
from experiments.report.rows import Findings, Row, budget_of
from experiments.runs.presets import PRESETS, text_of
from experiments.runs.records import FailedRow, Study, SweepRow
from farl_jax.methods import METHODS
from farl_jax.schema import SchemaError
from farl_jax.storage import json_files
from farl_jax.storage.files import fault_of

FAILED = "failed.jsonl"


@dataclass(frozen=True)
class SweepTable:
    """One sweep.jsonl: rows as in result.json, with the swept settings by dotted name."""

    name: str
    settings: tuple[str, ...]
    """Swept settings that take more than one value."""
    rows: tuple[Row, ...]

    def key(self, row: Row, names: Sequence[str]) -> str:
        """Its method, with its values of the settings that the method reads."""
        method = METHODS.get(row["method"])
        own = [n for n in names if not method or method.reads(n.split(".")[0])]
        return " ".join([row["method"], *(f"{name}={row.get(name)}" for name in own)])

    def groups(self) -> dict[str, dict[str, list[Row]]]:
        """task -> key (method, and the settings that it reads) -> one row per seed."""
        found: dict[str, dict[str, dict[int, Row]]] = {}
        for row in sorted(self.rows, key=lambda r: (r["task"], r["method"], r["seed"])):
            key = self.key(row, self.settings)
            found.setdefault(row["task"], {}).setdefault(key, {}).setdefault(row["seed"], row)
        return {t: {k: list(own.values()) for k, own in keys.items()} for t, keys in found.items()}

    def across(self, task: str) -> "Across | None":
        """A task's cells along the numeric setting with most values, else along all settings.

        None if nothing was swept.
        """
        rows = sorted((r for r in self.rows if r["task"] == task), key=lambda r: r["seed"])
        values = lambda *names: list(dict.fromkeys(tuple(r.get(n) for n in names) for r in rows))
        numeric = [n for n in self.settings if all(type(v) in (int, float) for (v,) in values(n))]
        if not self.settings:
            return None
        if numeric:
            x = max(numeric, key=lambda name: len(values(name)))
            apart = [n for n in self.settings if len(values(x, n)) > len(values(x))]
            along, ticks = [x, *(n for n in self.settings if n not in (x, *apart))], []
            place = lambda row: float(row[x])
        else:
            apart, along, kinds = [], self.settings, values(*self.settings)
            ticks = ["\n".join(map(text_of, kind)) for kind in kinds]
            place = lambda row: float(kinds.index(tuple(row.get(n) for n in along)))
        lines: dict[str, dict[float, dict[int, Row]]] = {}
        for row in rows:
            own = lines.setdefault(self.key(row, apart), {}).setdefault(place(row), {})
            own.setdefault(row["seed"], row)
        return Across(" with ".join(along), tuple(ticks), lines)


@dataclass(frozen=True)
class Across:
    """Cells of a sweep along one axis."""

    label: str
    ticks: tuple[str, ...]
    """Names of the places 0, 1, ... if they are not numbers."""
    lines: Mapping[str, Mapping[float, Mapping[int, Row]]]
    """key (method, and distinguishing settings) -> place -> seed -> row."""


def find_sweeps(folders: Sequence[Path], findings: Findings) -> list[SweepTable]:
    """All sweeps below `folders`. Damaged rows and failed cells are left out by name."""
    paths = dict.fromkeys(path for folder in folders for path in find(folder, SWEEP))
    sweeps = [_read_sweep(path, findings) for path in paths]
    return [sweep for sweep in sweeps if sweep.rows]


def find_horizons(folders: Sequence[Path], findings: Findings) -> list[tuple[Path, Row]]:
    """(file, study) of every study of the horizon below `folders`."""
    studies = []
    paths = [path for folder in folders for name in HORIZONS for path in find(folder, name)]
    for path in dict.fromkeys(paths):
        try:
            check_found(path)
            studies.append((path, json_files.read(path, Study)))
        except (SchemaError, UserError) as error:
            findings.left_out.append((str(path), str(error).removeprefix(f"{path}: ")))
    return studies


def _read_sweep(path: Path, findings: Findings) -> SweepTable:
    """Read one table. Its rows are as in result.json, and swept settings are keys with a dot.

    failed.jsonl beside it names the failed cells.
    """
    for row in _rows(path.with_name(FAILED), FailedRow, findings):
        cell = f"{path.parent}/{row['cell']}/{row['method']}"
        findings.left_out.append((cell, f"failed: {row['error']}"))
    rows: list[Row] = []
    seen: set[str] = set()
    for row in _rows(path, SweepRow, findings):
        cell = json.dumps([row[k] for k in ("task", "method", "seed")] + _swept(row))
        if cell in seen:
            name = "{task}, {method}, seed {seed}".format(**row)
            findings.left_out.append((f"{path}, {name}", "the same cell as an earlier line"))
            continue
        seen.add(cell)
        rows.append(row)
    return _of_one_budget(path, rows, findings)


def _of_one_budget(path: Path, rows: Sequence[Row], findings: Findings) -> SweepTable:
    """Keep the rows with the most frequent budget."""
    budgets = [_budget(row) for row in rows]
    usual = max(sorted(set(budgets), key=str), key=budgets.count) if budgets else None
    for row, (number, unit) in zip(rows, budgets, strict=True):
        if (number, unit) != usual:
            name = f"{path}, {row['method']}, seed {row['seed']}, {dict(_swept(row))}"
            most = usual[0] if unit == usual[1] else f"{usual[0]} {usual[1]}"
            text = f"another budget: {number} {unit}, but most have {most}"
            findings.left_out.append((name, text))
    kept = tuple(row for row, own in zip(rows, budgets, strict=True) if own == usual)
    names = dict.fromkeys(name for row in kept for name, _ in _swept(row))
    several = [n for n in names if len({json.dumps(row.get(n)) for row in kept}) > 1]
    return SweepTable(str(path.parent), tuple(several), kept)


def _budget(row: Row) -> tuple[int, str]:
    """`rows.budget_of` a row, which has its preset's settings but for those that were swept."""
    known = PRESETS.get(row["preset"])
    return budget_of(row, row.get("online.episodes", known and known.online.episodes))


def _swept(row: Row) -> list[tuple[str, Any]]:
    return sorted((name, value) for name, value in row.items() if "." in name)


def _rows(path: Path, kind: Any, findings: Findings) -> list[Row]:
    """The rows of a table. Other lines, or a file that cannot be read, are left out by name."""
    if os.path.lexists(path) and (fault := fault_of(path, path.parent)):
        findings.left_out.append((str(path), fault))
        return []
    left_out = lambda line, why: findings.left_out.append((line, why))
    try:
        return json_files.read_rows(path, kind, left_out) if path.exists() else []
    except SchemaError as error:
        findings.left_out.append((str(path), str(error).removeprefix(f"{path}: ")))
        return []
