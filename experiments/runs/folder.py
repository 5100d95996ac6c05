"""The folder of a run: its settings, its lock, and whether it holds this run."""

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
    """Refuse a run's folder that reaches outside itself or holds what is no file.

    A folder without `mark`, for a run its config.json, is not ours and not looked through.

    Raises:
        UserError: it names the link, FIFO, socket or device.
    """
    with disk_errors(folder):
        found = files.find_fault(folder) if os.path.lexists(Path(folder) / mark) else None
    if found:
        raise UserError(f"{found[0]}: {found[1]}; remove it, or put a copy of its file there")


class RunFolder:
    """One run's folder: `config.json`, `env.json`, and what the command puts beside them.

    Held by one process at a time, through a lock that the system takes back when the process
    ends, however it ends. Use it as a context manager, or call `close`.
    """

    def __init__(self, path: Path, lock: int) -> None:
        """Take over a folder whose lock is held as file descriptor `lock`; see `create`."""
        self.path = path
        self._lock: int | None = lock

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, resume: bool = False) -> Self:
        """Start a run in `path`, or with `resume` go on with the one that is there.

        `config` is JSON. With `resume` it must equal the one saved, entry for entry.

        Raises:
            UserError: another run, foreign files, a second process, or a disk that refuses.
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
            from experiments.process.machine import describe_environment  # which starts JAX

            _check_contents(path, config, resume)  # again: another process may have been first
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
        """Give the folder free. More than once is harmless."""
        if self._lock is not None:
            _discard(self.path / LOCK)
            os.close(self._lock)
            self._lock = None


def _check_contents(path: Path, config: Mapping[str, Any], resume: bool) -> None:
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a file; choose another --out")
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if CONFIG in names:
        saved = json_files.read(path / CONFIG, dict[str, Any])
        if difference := first_difference(saved, config):
            name, old, new = difference
            raise UserError(
                f"{path}: holds another run: {name} is {old} there and {new} here; "
                "choose another --out, or use --resume with the same settings"
            )
        if not resume:
            raise UserError(f"{path}: holds this run already; add --resume to go on with it")
    elif foreign := sorted(name for name in names - {LOCK, ENVIRONMENT} if name[0] != "."):
        raise UserError(
            f"{path}: is not a run's folder: it holds {foreign[0]}; choose another --out"
        )
    elif resume:
        raise UserError(f"{path}: there is no run to resume; leave out --resume to start one")


def first_difference(old: Any, new: Any, name: str = "") -> tuple[str, str, str] | None:
    """Where two JSON trees differ first: (dotted name, old value, new value) as text."""
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
    """Lock the file and write down who holds it; a dead process of this host holds nothing."""
    here = _place()
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            owner, host = _read_owner(descriptor)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"{path.parent}: in use by process {owner} on {host}; wait, or end that process"
                ) from error
            if not os.path.exists(path) or not os.path.samestat(os.fstat(descriptor), path.lstat()):
                os.close(descriptor)  # the holder removed it just before we locked it
                continue
            if host not in ("", here) and not _is_over(host):
                raise UserError(
                    f"{path.parent}: in use by process {owner} on {host}; "
                    f"if that is gone, delete {path}"
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
    """What a lock says of where its holder runs: the Slurm job, which may move, or the host."""
    job = os.environ.get("SLURM_JOB_ID")
    return f"{_SLURM_JOB}{job}" if job else socket.gethostname()


def _is_over(place: str) -> bool:
    """Whether a lock's place is a job that Slurm knows to have ended, whatever its host says."""
    if not place.startswith(_SLURM_JOB):
        return False
    words = ["squeue", "--noheader", "--format=%T", f"--jobs={place.removeprefix(_SLURM_JOB)}"]
    try:
        asked = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return not asked.stdout.strip() and (
        asked.returncode == 0 or "Invalid job id" in asked.stderr  # too long ago
    )


def _discard(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
