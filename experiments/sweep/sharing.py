"""Folders of a base run that cells of a sweep share, copied as hard links."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from experiments.runs.provenance import check
from experiments.runs.run import Run
from farl_jax.storage import checkpoint, metrics
from farl_jax.storage.files import replacing


def take(base: Path, run: Run, names: Sequence[str]) -> None:
    """Copy the base run's folders `names` into a run that lacks them. Settings must fit."""
    offline = next(p for p in (run.path / "offline", base / "offline") if p.exists())
    check(run.settings, checkpoint.read_metadata(offline), "offline", offline)
    for name in names:
        if not (run.path / name).exists():
            _copy(base / name, run.path / name)
    if not (run.path / metrics.FILE).exists():
        with replacing(run.path / metrics.FILE) as temporary:
            shutil.copyfile(base / metrics.FILE, temporary)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, whole or not at all, as hard links if the disk allows."""
    with replacing(target, folder=True) as temporary:
        shutil.copytree(source, temporary, True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """Link a file. Only metrics are copied, because all other files are replaced, not changed."""
    if Path(source).name == metrics.FILE:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
