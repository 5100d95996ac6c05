"""Search of a report's files, below folders that may be foreign."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.runs.aside import REPLACED
from experiments.runs.folder import check_data
from farl_jax.storage.files import fault_of, walk
from farl_jax.storage.trackers import FOLDERS

SWEEP = "sweep.jsonl"
HORIZONS = ("horizon.json", "horizon_offline.json")
_SKIPPED = {"checkpoints", "demos", "offline", "transitions", *FOLDERS, REPLACED}


def find(folder: Path, name: str) -> Iterable[Path]:
    """Files with this name below `folder`, in order. In a sweep's folder only its table counts."""
    return (here / name for here, files in _walk(folder) if name in files)


def closed_folders(folder: Path) -> list[tuple[str, str]]:
    """(name, reason) of each folder, `folder` included, that cannot be opened."""
    errors: list[OSError] = []
    for _ in _walk(folder, errors.append):
        pass
    refused = [error for error in errors if not isinstance(error, FileNotFoundError)]
    return [(str(error.filename), f"cannot be read: {error.strerror}") for error in refused]


def check_found(path: Path) -> None:
    """Refuse a file `<run>/<method>/<name>` that is not plain data of its run's folder.

    Raises:
        UserError: it, or another entry of that folder, is a link to elsewhere, or no file.
    """
    check_data(path.parent.parent)
    if fault := fault_of(path, path.parent.parent):
        raise UserError(f"{path}: {fault}")


def _walk(
    folder: Path, closed: Callable[[OSError], Any] | None = None
) -> Iterable[tuple[Path, list[str]]]:
    """(folder, names of its files) for `folder` and all below. `closed` gets the errors."""
    for here, below, files in walk(folder, closed):
        if SWEEP in files:
            below.clear()
            files = [SWEEP]
        below[:] = [name for name in below if name not in _SKIPPED]
        yield here, files
