"""The cells of a sweep: their settings and folders."""

import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.arguments import SweepArgs
from experiments.errors import UserError
from experiments.runs import estimate
from experiments.runs.files import read_settings
from experiments.runs.folder import CONFIG, check_data
from experiments.runs.presets import (
    RunSettings,
    check_run,
    parse_setting,
    preset,
    text_of,
    with_settings,
)
from farl_jax.config import FarlConfig
from farl_jax.methods import find_method
from farl_jax.storage import json_files


@dataclass(frozen=True)
class Cell:
    """One run folder of a sweep."""

    swept: Mapping[str, Any]
    settings: RunSettings
    path: Path
    name: str


def read_fields(words: Sequence[str]) -> dict[str, list[Any]]:
    """Words "group.field=value,value" -> field -> values of the field's type."""
    fields: dict[str, list[Any]] = {}
    for word in words:
        name, equals, texts = word.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise UserError(f"--set must be FIELD=VALUE,VALUE; got {word}")
        if name in fields:
            raise UserError(f"--set {name} is given twice; give all its values in one --set")
        values = [parse_setting(name, t.strip()) for t in texts.split(",") if t.strip()]
        if not values:
            raise UserError(f"--set {name} has no value; give at least one")
        fields[name] = values
    if not fields:
        raise UserError("nothing to sweep; give at least one --set FIELD=VALUE,VALUE")
    return fields


def expand(fields: Mapping[str, Sequence[Any]], *, paired: bool) -> list[dict[str, Any]]:
    """All combinations of the fields' values, each once, the last field varying fastest.

    `paired` combines the first values of all fields, then the second ones, and so on. A single
    value goes with all.
    """
    combine, columns = itertools.product, list(fields.values())
    if paired:
        combine, longest = zip, max(map(len, columns))
        columns = [list(v) * (longest if len(v) == 1 else 1) for v in columns]
        if any(len(values) != longest for values in columns):
            counts = ", ".join(f"{name} {len(values)}" for name, values in fields.items())
            raise UserError(f"--list needs as many values of each setting, or one; got {counts}")
    cells = [dict(zip(fields, values, strict=True)) for values in combine(*columns)]
    if twice := [cell for i, cell in enumerate(cells) if cell in cells[:i]]:
        raise UserError(f"--set: {label_of(twice[0])} is given twice")
    return cells


def plan(args: SweepArgs) -> list[Cell]:
    """Plan and check all run folders of a sweep, before anything is written."""
    for method in args.method:
        find_method(method)
    config, cells = preset(args.preset), []
    grid = expand(read_fields(args.set), paired=args.list)
    runs = len(grid) * args.seeds
    for swept in grid:
        label = label_of(swept)
        changed = with_settings(config, swept)
        estimate.check_fits(changed, runs, len(args.method), insist=args.insist)
        check_run(
            RunSettings(args.task, args.preset, args.seed, args.backend, changed), args.method
        )
        for seed in range(args.seed, args.seed + args.seeds):
            settings = RunSettings(args.task, args.preset, seed, args.backend, changed)
            name = f"{label}/seed{seed}"
            cells.append(Cell(swept, settings, args.out / name, name))
    for cell in cells:
        if (cell.path / CONFIG).exists() and not holds(cell.path, cell.settings):
            raise UserError(f"{cell.path} has a run with other settings; choose another --out")
    return cells


def holds(path: Path, settings: RunSettings) -> bool:
    """Whether a folder has the run with these settings."""
    check_data(path)
    if not (path / CONFIG).exists():
        return False
    same = json_files.read(path / CONFIG, dict[str, Any]) == _as_saved(settings)
    return same or read_settings(path)[0] == settings  # older versions lack fields


def _as_saved(settings: RunSettings) -> dict[str, Any]:
    return json.loads(json.dumps(settings.to_json()))


def base_name(settings: RunSettings) -> str:
    """Folder of a base run in the sweep: its name lists the differences from the preset."""
    label = _differing(settings.preset, settings.config)
    return f"base/{label or settings.preset}/seed{settings.seed}"


@functools.lru_cache(maxsize=4096)
def _differing(preset_name: str, config: FarlConfig) -> str:
    """Differences from a preset, as text for folder names."""
    default = dataclasses.asdict(preset(preset_name))
    return label_of(
        {
            f"{group}.{name}": value
            for group, values in dataclasses.asdict(config).items()
            for name, value in values.items()
            if value != default[group][name]
        }
    )


def label_of(values: Mapping[str, Any]) -> str:
    """Settings as text for folder names."""
    return ",".join(f"{name}={text_of(value)}" for name, value in values.items())
