"""The folder of a run: its settings, its lock, and checks of its contents."""

import fcntl
import json
import os
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from experiments.errors import UserError, disk_errors
from experiments.process.outputs import write_json
from experiments.runs.aside import put_back
from experiments.runs.records import Environment
from farl_jax.storage import files, json_files

CONFIG = "config.json"
ENVIRONMENT = "env.json"
LOCK = "run.lock"

_MISSING = "<missing>"
_SLURM_JOB = "slurm-job-"


def check_data(folder: Path, mark: str = CONFIG) -> None:
    """Refuse a run's folder with links, FIFOs, sockets or devices in it.

    A folder without `mark` (for a run its config.json) is not ours and is not searched.

    Raises:
        UserError: it names the first such entry.
    """
    with disk_errors(folder):
        found = files.find_fault(folder) if os.path.lexists(Path(folder) / mark) else None
    if found:
        raise UserError(f"{found[0]}: {found[1]}; remove it, or replace it by a copy of its file")


class RunFolder:
    """One run's folder: `config.json`, `env.json`, and the results of commands.

    One process at a time holds its lock, which the system frees when the process ends. Use it as a
    context manager, or call `close`.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Take over a folder with the file descriptor of its lock. See `create`."""
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, resume: bool = False) -> Self:
        """Start a run in `path`, or with `resume` continue the one there.

        `config` is JSON. With `resume` it must equal the saved one.

        Raises:
            UserError: another run, foreign files, a second process, or a disk error.
        """
        path = Path(path)
        config = json.loads(json.dumps(dict(config), allow_nan=False))
        check_data(path)
        with disk_errors(path):
            if not resume:
                path.mkdir(parents=True, exist_ok=True)
            _check_contents(path, config, resume)
            lock = _take_lock(path / LOCK)
        run = cls(path, lock)
        try:
            from experiments.process.machine import describe_environment  # it starts JAX

            _check_contents(path, config, resume)  # again, as another process may have been first
            files.discard_leftovers(path)
            put_back(path)
            if resume:
                known = (path / ENVIRONMENT).exists()
                saved = json_files.read(path / ENVIRONMENT, Environment) if known else {}
                resumed = [*saved.get("resumed", []), describe_environment()]
                write_json(path / ENVIRONMENT, {**saved, "resumed": resumed})
            else:
                write_json(path / ENVIRONMENT, describe_environment())
                write_json(path / CONFIG, config)
        except BaseException:
            run.close()
            raise
        return run

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the folder. A second call does nothing."""
        if self._lock is not None:
            _discard(self.path / LOCK)
            os.close(self._lock)
            self._lock = None


def _check_contents(path: Path, config: Mapping[str, Any], resume: bool) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file; choose another --out")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if CONFIG in names:
        saved = json_files.read(path / CONFIG, dict[str, Any])
        if difference := first_difference(saved, config):
            name, old, new = difference
            raise UserError(
                f"{path} has another run: {name} is {old} there and {new} here; "
                "choose another --out, or use --resume with the same settings"
            )
        if not resume:
            raise UserError(f"{path} already has this run; add --resume to continue it")
    elif foreign := sorted(name for name in names - {LOCK, ENVIRONMENT} if name[0] != "."):
        raise UserError(
            f"{path} is not a run's folder, because it has {foreign[0]}; choose another --out"
        )
    elif resume:
        raise UserError(f"{path} has no run to resume; leave out --resume to start one")


def first_difference(old: Any, new: Any, name: str = "") -> tuple[str, str, str] | None:
    """First difference of two JSON trees: (dotted name, old value, new value) as text."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*new, *(key for key in old if key not in new)]:
            below = f"{name}.{key}" if name else key
            found = first_difference(old.get(key, _MISSING), new.get(key, _MISSING), below)
            if found:
                return found
        return None
    return None if old == new else (name or CONFIG, _short(old), _short(new))


def _short(value: Any) -> str:
    text = value if value == _MISSING else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _take_lock(path: Path) -> int:
    """Lock the file and write its holder into it. A dead process of this host holds no lock."""
    here = _place()
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            owner, host = _read_owner(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{path.parent} is in use by process {owner} on {host}; wait for it, or end it"
                ) from error
            if not os.path.exists(path) or not os.path.samestat(os.fstat(descriptor), path.lstat()):
                os.close(descriptor)  # the holder removed it just before we locked it
                continue
            if host not in ("", here) and not _is_over(host):
                raise UserError(
                    f"{path.parent} is in use by process {owner} on {host}; "
                    f"if that process has ended, delete {path}"
                )
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()} {here}\n".encode(), 0)
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise


def _read_owner(descriptor: int) -> tuple[str, str]:
    words = os.pread(descriptor, 300, 0).decode("utf-8", "replace").split()
    return (words[0], words[1]) if len(words) == 2 else ("", "")


def _place() -> str:
    """Place of a lock's holder: its Slurm job, which may change hosts, or the host."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{_SLURM_JOB}{job}" if job else socket.gethostname()


def _is_over(place: str) -> bool:
    """Whether a lock's place is a Slurm job that has ended."""
    if not place.startswith(_SLURM_JOB):
        return False
    words = ["squeue", "--noheader", "--format=%T", f"--jobs={place.removeprefix(_SLURM_JOB)}"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return not asked.stdout.strip() and (
        asked.returncode == 0 or "Invalid job id" in asked.stderr  # it ended long ago
    )


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
