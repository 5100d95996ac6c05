"""What cells of a sweep share: folders of a base run, copied by hard links."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from experiments.runs.provenance import check
from experiments.runs.run import Run
from farl_jax.storage import checkpoint, metrics
from farl_jax.storage.files import replacing


def take(base: Path, run: Run, names: Sequence[str]) -> None:
    """Give a run that lacks them the base run's folders `names`; strict about settings."""
    offline = next(p for p in (run.path / "offline", base / "offline") if p.exists())
    check(run.settings, checkpoint.read_metadata(offline), "offline", offline)
    for name in names:
        if not (run.path / name).exists():
            _copy(base / name, run.path / name)
    if not (run.path / metrics.FILE).exists():
        with replacing(run.path / metrics.FILE) as temporary:
            shutil.copyfile(base / metrics.FILE, temporary)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, all of it or nothing; by hard links, where the disk allows."""
    with replacing(target, folder=True) as temporary:
        shutil.copytree(source, temporary, True, copy_function=_link, dirs_exist_ok=True)


def _link(source: str, target: str) -> None:
    """A hard link is as good as a copy: but for metrics, files are replaced, not written into."""
    if Path(source).name == metrics.FILE:
        shutil.copy2(source, target)
        return
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
