"""Where a report finds its files: below folders that may be anybody's."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.runs.aside import REPLACED
from experiments.runs.folder import check_data
from farl_jax.storage.files import fault_of, walk

SWEEP = "sweep.jsonl"
HORIZONS = ("horizon.json", "horizon_offline.json")
_SKIPPED = {"checkpoints", "demos", "offline", "tb", REPLACED}


def find(folder: Path, name: str) -> Iterable[Path]:
    """Files of this name below `folder`, in order; inside a sweep's folder only its own table."""
    return (here / name for here, files in _walk(folder) if name in files)


def closed_folders(folder: Path) -> list[tuple[str, str]]:
    """(Name, reason) of each folder below `folder`, or itself, that the system does not open."""
    errors: list[OSError] = []
    for _ in _walk(folder, errors.append):
        pass
    refused = [error for error in errors if not isinstance(error, FileNotFoundError)]
    return [(str(error.filename), f"cannot be read: {error.strerror}") for error in refused]


def check_found(path: Path) -> None:
    """Refuse a file that is not data of its run's folder, `<run>/<method>/<name>`.

    Raises:
        UserError: it, or another entry of that folder, is a link that leads out, or no file.
    """
    check_data(path.parent.parent)
    if fault := fault_of(path, path.parent.parent):
        raise UserError(f"{path}: {fault}")


def _walk(
    folder: Path, closed: Callable[[OSError], Any] | None = None
) -> Iterable[tuple[Path, list[str]]]:
    """(Folder, names of its files) for `folder` and all below; `closed` is told of errors."""
    for here, below, files in walk(folder, closed):
        if SWEEP in files:
            below.clear()
            files = [SWEEP]
        below[:] = [name for name in below if name not in _SKIPPED]
        yield here, files
