"""One run: its folder, settings, random streams and artefacts."""

import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.text import Text

from envs_mjx import BatchEnv, RobotEnv, make
from experiments.errors import UserError
from experiments.process.console import plain_console
from experiments.runs.files import read_settings
from experiments.runs.folder import LOCK, RunFolder, check_data
from experiments.runs.presets import PROTOCOL, RunSettings
from experiments.runs.provenance import check, demo_sources
from farl_jax import devices
from farl_jax.agent import Agent, Networks
from farl_jax.storage import checkpoint
from farl_jax.storage.files import LEFTOVER


@cache
def _environment(task: str, backend: str | None) -> RobotEnv:
    """Build an environment once per process. It is pure, and building it takes most of a second."""
    return make(task, backend)


@dataclass(frozen=True)
class Run:
    """A run, as every phase needs it."""

    path: Path
    settings: RunSettings
    resume: bool
    console: Console

    def key(self, name: str) -> jax.Array:
        """Random stream of this name, independent of all others and the same for all methods."""
        root = jax.random.key(self.settings.seed)
        return jax.random.fold_in(root, zlib.crc32(name.encode()) & 0x7FFFFFFF)

    def env(self, num_envs: int) -> BatchEnv:
        """The run's environment, as a batch of `num_envs`."""
        return BatchEnv(_environment(self.settings.task, self.settings.backend), num_envs)

    @property
    def task_name(self) -> str:
        """The task's own name, also if the setting is an import path."""
        return self.env(1).name

    def networks(self) -> Networks:
        """The run's networks."""
        env = self.env(1)
        return Networks.create(self.settings.config, env.observation_size, env.action_size)

    def expect(self, kind: str) -> dict[str, Any]:
        """Metadata that a checkpoint of this run must have."""
        return {"task": self.settings.task, "kind": kind, "protocol": PROTOCOL}

    def say(self, text: str, about: str = "") -> None:
        """Print a line, with `about` before it, indented and dim."""
        lead = [("  "), (about, "dim"), " "] if about else []
        self.console.print(Text.assemble(*lead, text), soft_wrap=True)

    def offline_result(self) -> Agent:
        """Restore the offline checkpoint, and check that it was made from these demonstrations."""
        abstract = {"result": self.networks().abstract_agent()}
        folder = self.path / "offline"
        _, items, about = checkpoint.restore(folder, abstract, expect=self.expect("offline"))
        check(self.settings, about, "offline", folder, demo_sources(self.path / "demos"))
        return items["result"]


def open_run(
    path: Path, console: Console, *, resume: bool = True, task: str | None = None
) -> tuple[Run, AbstractContextManager]:
    """Open an existing run's folder, with the settings in its config.json.

    A task that is an import path must also be given as `task`, because a file alone must not run
    code. If several processes share the run, all but the first work in a temporary copy.
    """
    settings, saved = _settings_of(path, task)
    if not devices.leads():
        folder = tempfile.TemporaryDirectory()
        copy, left = Path(folder.name) / path.name, shutil.ignore_patterns(f"{LEFTOVER}*", LOCK)
        path = Path(shutil.copytree(path, copy, symlinks=True, ignore=left))
        devices.path_of_first(path)  # from now on the first may write
        return Run(path, settings, resume, plain_console(quiet=True)), folder
    folder = RunFolder.create(path, saved, resume=True)
    devices.path_of_first(path)
    return Run(path, settings, resume, console), folder


def read_run(path: Path, task: str | None = None) -> Run:
    """A run to read only: its folder is not held, and nobody hears of it; `task` as above."""
    return Run(path, _settings_of(path, task)[0], True, plain_console(quiet=True))


def _settings_of(path: Path, task: str | None) -> tuple[RunSettings, dict[str, Any]]:
    config = path / "config.json"
    check_data(path)
    if not config.exists():
        raise UserError(f"no run at {path}; start one with `farl run` or `farl demos`")
    settings, saved = read_settings(path)
    if ":" in settings.task and settings.task != task:
        raise UserError(
            f"{config} names code, {settings.task}; if you trust it, add --task {settings.task}"
        )
    return settings, saved


def start_run(
    path: Path, settings: RunSettings, console: Console, *, resume: bool
) -> tuple[Run, RunFolder]:
    """Open a new run's folder, or with `resume` an existing one's."""
    check_data(path)
    resume, wanted = resume and (path / "config.json").exists(), settings.to_json()
    if resume:
        known, saved = read_settings(path)
        wanted = saved if known == settings else wanted  # an older version may lack settings
    folder = RunFolder.create(path, wanted, resume=resume)
    return Run(path, settings, resume, console), folder


@contextmanager
def start_runs(
    wanted: Sequence[tuple[Path, RunSettings]], console: Console, *, resume: bool
) -> Iterator[list[Run]]:
    """Open several runs with `start_run`, and lock their folders until the end."""
    with ExitStack() as held:
        runs = []
        for path, settings in wanted:
            run, folder = start_run(path, settings, console, resume=resume)
            held.enter_context(folder)
            runs.append(run)
        yield runs


def reporter(run: Run, writer: Any, phase: str) -> Callable[[str, dict[str, float]], None]:
    """Build `report(stage, metrics)`, which writes a row and prints a line."""
    step = 0

    def report(stage: str, metrics: dict[str, float]) -> None:
        nonlocal step
        step += 1
        writer.write(step, {f"{stage}/{k}": v for k, v in metrics.items()}, phase)
        shown = "  ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        run.say(f"{stage}: {shown}", about=phase)

    return report
