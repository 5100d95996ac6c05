"""Move entries of a run's folder into `<run>/replaced/<n>`: all or none, and nothing is deleted.

They are moved into a folder that gets this name at the end. A folder with another name was
interrupted. The next command that opens the run moves its entries back.
"""

import os
from collections.abc import Sequence
from pathlib import Path

REPLACED = "replaced"
MOVING = ".moving"


def put_aside(run: Path, names: Sequence[str]) -> Path | None:
    """Move the existing ones of these entries, and return their new folder, or None without any.

    Raises:
        OSError: the disk refuses. Then all entries are where they were.
    """
    found = [name for name in names if os.path.lexists(run / name)]
    if not found:
        return None
    place = run / REPLACED
    place.mkdir(exist_ok=True)
    numbers = [int(entry.name) for entry in place.iterdir() if entry.name.isdecimal()]
    target = place / str(1 + max(numbers, default=0))
    moving = target.with_name(f"{target.name}{MOVING}")
    try:
        for name in found:
            (moving / name).parent.mkdir(parents=True, exist_ok=True)
            (run / name).rename(moving / name)
        moving.rename(target)
    except BaseException:
        put_back(run)
        raise
    return target


def put_back(run: Path) -> None:
    """Undo interrupted moves."""
    place = run / REPLACED
    for moving in list(place.iterdir()) if place.is_dir() else []:
        if moving.name.endswith(MOVING):
            _move_into(moving, run)


def _move_into(source: Path, target: Path) -> None:
    """Move a folder's entries back, and merge folders that still exist."""
    for entry in list(source.iterdir()):
        if entry.is_dir() and (target / entry.name).is_dir():
            _move_into(entry, target / entry.name)
        else:
            entry.rename(target / entry.name)
    source.rmdir()
