"""Readers of a run's files. They check each file, and that it belongs to the run."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.runs.folder import CONFIG
from experiments.runs.presets import PROTOCOL, RETIRED, RunSettings, retired
from experiments.runs.records import Result, Row, Saved
from farl_jax.schema import SchemaError, check, shown
from farl_jax.storage.json_files import read
from farl_jax.storage.metrics import FILE, OnlineRow, read_metrics

RESULT = "result.json"


def read_saved(run: Path) -> Row:
    """Return a run's config.json, with the settings of any version.

    Raises:
        SchemaError: missing, damaged, or of another protocol.
    """
    path = run / CONFIG
    saved = read(path, dict[str, Any])
    if (found := saved.get("protocol")) != PROTOCOL:
        raise SchemaError(
            f"{path}: protocol must be {PROTOCOL}; got {shown(found)}; "
            "start a new run with another --out"
        )
    try:
        return check(Saved, saved, "")
    except SchemaError as error:
        raise SchemaError(f"{path}: {error}") from error


def read_settings(run: Path) -> tuple[RunSettings, Row]:
    """Return a run's settings, and its config.json as it is. Warn of retired settings.

    Raises:
        SchemaError: missing, damaged, or with a setting that this version does not allow.
    """
    saved = read_saved(run)
    try:
        settings = RunSettings.from_json(saved)
    except (SchemaError, UserError) as error:
        told = str(error).removeprefix(f"{CONFIG}.")
        raise SchemaError(f"{run / CONFIG}: {told}") from error
    if names := retired(saved):
        told = ", ".join(f"{old} ({RETIRED[old] or 'left out'})" for old in names)
        warnings.warn(f"{run / CONFIG}: settings of an older version: {told}", stacklevel=2)
    return settings, saved


def read_result(folder: Path, about: Mapping[str, Any]) -> Row:
    """Return `<run>/<method>/result.json`; `about` is the run's config.json.

    Raises:
        SchemaError: damaged, or the result of another run or method.
    """
    path = folder / RESULT
    row = read(path, Result)
    if row["method"] != folder.name:
        raise SchemaError(f"{path}: mixed folder: the result is of {row['method']}")
    for name in ("task", "seed", "preset"):
        if row[name] != about[name]:
            told = f"{name} is {about[name]} in config.json and {row[name]} in the result"
            raise SchemaError(f"{path}: mixed folder: {told}")
    return row


def read_curve(folder: Path) -> list[Row]:
    """Return the online rows of `<run>/<method>/metrics.jsonl`, at least one.

    Raises:
        SchemaError: missing, damaged, or without a row.
    """
    path = folder / FILE
    rows = read_metrics(path, OnlineRow)
    if not rows:
        raise SchemaError(f"{path} has no row, but its method has a result; copy it again")
    return rows
