"""One run: its folder, settings, random streams and artefacts."""

import dataclasses
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.text import Text

from experiments.errors import UserError
from experiments.process.console import plain_console
from experiments.runs import words
from experiments.runs.environment import batch, environment, is_own_environment, named
from experiments.runs.files import read_settings
from experiments.runs.folder import LOCK, RunFolder, check_data
from experiments.runs.presets import PROTOCOL, RunSettings
from experiments.runs.provenance import check, demo_sources
from farl_jax import devices
from farl_jax.agent import Agent, Networks
from farl_jax.data.dataset import read_metadata
from farl_jax.storage import checkpoint, trackers
from farl_jax.storage.files import LEFTOVER
from farl_jax.storage.metrics import MetricsWriter


@dataclass(frozen=True)
class Run:
    """A run, as every phase needs it."""

    path: Path
    settings: RunSettings
    resume: bool
    console: Console
    verbose: bool = False
    """Whether the terminal gets every number of a stage, and not a line in words."""
    track: str = "tensorboard"
    """Viewer that gets a copy of the metrics, of `farl_jax.storage.trackers.TRACKERS`."""
    transitions: int = 0
    """So many of the newest online steps are kept, for `farl demos export`."""

    def key(self, name: str) -> jax.Array:
        """Random stream of this name, independent of all others and the same for all methods."""
        root = jax.random.key(self.settings.seed)
        return jax.random.fold_in(root, zlib.crc32(name.encode()) & 0x7FFFFFFF)

    def env(self, num_envs: int) -> Any:
        """The run's environment, `num_envs` at once, a `farl_jax.types.BatchedEnv`."""
        own = environment(self.settings.task, self.settings.backend, self.settings.config.env)
        return batch(own, num_envs, self._references() if self.on_host else None)

    def online_env(self, num_envs: int) -> Any:
        """The environment of the online phase and of all that is measured after it.

        It is the run's own, or its variation by shifted dynamics.
        """
        if self.shift is None:
            return self.env(num_envs)
        settings = self.settings
        own = environment(settings.task, settings.backend, settings.config.env, self.shift)
        return batch(own, num_envs)

    @property
    def shift(self) -> int | None:
        """Seed of the online phase's shifted dynamics; None: they are nominal."""
        return self.settings.seed if self.settings.config.online.dynamics == "shifted" else None

    @property
    def on_host(self) -> bool:
        """Whether the environment is a user's own, whose steps are calls of the host."""
        return is_own_environment(self.settings.task)

    def _references(self) -> tuple[float, float]:
        """Random and expert return: of the settings, else as the demonstrations say, else NaN."""
        config, path = self.settings.config.env, self.path / "demos" / "task.npz"
        given = config.random_return, config.expert_return
        if None in given and path.is_file():
            measured = read_metadata(path).get("references", (float("nan"),) * 2)
            given = tuple(m if g is None else g for g, m in zip(given, measured, strict=True))
        return tuple(float("nan") if value is None else float(value) for value in given)

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

    def metrics(self, folder: Path) -> MetricsWriter:
        """Open the metrics of a folder of this run, with their copy for a viewer."""
        settings = self.settings
        group = f"{settings.task}/{settings.preset}"
        name = "/".join((group, f"seed{settings.seed}", *folder.relative_to(self.path).parts))
        label = trackers.Label(name, group, settings.to_json(), self.say)
        return MetricsWriter(folder, partial(trackers.TRACKERS[self.track], label))

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
            f"{config} names code, {settings.task}; if you trust it, add {named(settings.task)}"
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
    wanted: Sequence[tuple[Path, RunSettings]],
    console: Console,
    *,
    resume: bool,
    **told: Any,
) -> Iterator[list[Run]]:
    """Open several runs with `start_run`, and lock their folders until the end.

    `told` are further fields of each `Run`, such as `verbose`.
    """
    with ExitStack() as held:
        runs = []
        for path, settings in wanted:
            run, folder = start_run(path, settings, console, resume=resume)
            held.enter_context(folder)
            runs.append(dataclasses.replace(run, **told))
        yield runs


def reporter(run: Run, writer: Any, phase: str) -> Callable[[str, dict[str, float]], None]:
    """Build `report(stage, metrics)`, which writes a row and prints a line."""
    step, began = 0, {}

    def report(stage: str, metrics: dict[str, float]) -> None:
        nonlocal step
        step += 1
        writer.write(step, {f"{stage}/{k}": v for k, v in metrics.items()}, phase)
        now, done = time.perf_counter(), metrics.get("step", 0)
        start, first = began.setdefault(stage, (now, done))  # after the first part, which compiles
        seconds = (now - start) / (done - first) if done > first else 0.0
        text = words.stage_words(stage, metrics, run.settings.config, seconds)
        run.say(f"{stage}: {words.numbers(metrics)}" if run.verbose else text, about=phase)

    return report
