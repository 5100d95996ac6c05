"""`farl reproduce`: the paper's two main figures beside ours, from runs that it makes or finds."""

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from envs_mjx import TASKS
from experiments import main_table, robot_table
from experiments.errors import UserError
from experiments.figures.decoration import decoration
from experiments.figures.paper import failures_figure, read_paper, returns_figure, robot_figure
from experiments.figures.style import save
from experiments.phases.judge import Judge
from experiments.phases.online import all_phases
from experiments.process.outputs import check_output_folder, write_json, write_rows
from experiments.runs.folder import ENVIRONMENT
from experiments.runs.presets import RunSettings, differences, preset, text_of
from experiments.runs.records import Environment, MainRow, Row
from experiments.runs.run import Run, start_runs
from farl_jax.methods import MAIN, METHODS
from farl_jax.schema import SchemaError
from farl_jax.storage import json_files
from farl_jax.storage.files import fault_of

FIELDS = (
    *("task", "method", "seed", "online_steps", "episodes", "failure_episodes", "failing_steps"),
    *("recovered_steps", "initial_return", "final_return", "initial_success", "final_success"),
    *("causes", "control_episodes", "control_failure_episodes", "max_risk"),
    *("wall_seconds", "backend"),
    *("offline_steps", "offline_episodes", "offline_failure_episodes"),
    *("final_failure_rate", "final_return_without_gate", "final_success_without_gate"),
)


@dataclass(frozen=True)
class Usual:
    """What figures are made of, unless told otherwise."""

    preset: str
    suite: str
    seeds: int
    methods: tuple[str, ...]  # others come on top
    out: Path

    def folder(self, name: str) -> Path:
        """Usual output of preset `name`. Presets do not share one, as each drops others' rows."""
        return self.out if name == self.preset else self.out / name


SIMULATED = Usual("paper", "failurebench", 3, MAIN, Path("results"))
ROBOT = Usual("robot", "franka", 10, (*MAIN, "simple_critic"), Path("results", "robot"))


def usual(figure: str) -> Usual:
    """The usual runs of a figure of `farl reproduce`."""
    return ROBOT if figure == "robot" else SIMULATED


@dataclass(frozen=True)
class Plan:
    """The runs of the figures."""

    tasks: tuple[str, ...]
    methods: tuple[str, ...]  # both of MAIN, and others
    seeds: tuple[int, ...]
    preset: str
    backend: str | None
    runs: Path  # contains <task>/<preset>/seed<N>
    together: bool = False  # all seeds of a method in one program


def reproduce(
    plan: Plan, figures: Sequence[str], out: Path, command: str, console: Console
) -> None:
    """Make missing runs, continue interrupted ones, skip finished ones, then draw.

    Writes `<out>/main.jsonl` (one row per run), `settings.json`, and `failures` and `returns` as
    PNG and PDF. Other rows stay if the preset still has their settings.
    """
    check_output_folder("--out", out)
    rows, (kept, settings) = [], still_valid(out, plan.preset, console)
    for task in plan.tasks:
        rows += _complete(plan, task, console)
        new = {_name(row) for row in rows}
        everything = [row for row in kept if _name(row) not in new] + rows
        own = settings_of(task, plan.preset)
        settings[fingerprint(own)] = own
        write_json(out / "settings.json", settings)
        write_rows(out / "main.jsonl", sorted(everything, key=_order))
    show(sorted(everything, key=_order), figures, out, command, console)


def redraw(out: Path, name: str, figures: Sequence[str], command: str, console: Console) -> None:
    """Run nothing. Show the rows of `out` that were made with the settings of preset `name`.

    If there are none, show those that an earlier version made with its preset `name`.
    """
    rows, _ = still_valid(out, name, console)
    rows = rows or of_other_settings(out, name, console)
    if rows:
        check_output_folder("--out", out)
    show(sorted(rows, key=_order), figures, out, command, console)


def bring_stored(out: Path, console: Console, of: Usual = SIMULATED) -> None:
    """Copy the rows that come with this package into `out`, unless it has rows of its own.

    The rows are those of the figures `of`. A wheel has them in `experiments/stored`, a checkout in
    `results`.
    """
    own = Path(__file__).with_name("stored")
    own = own if own.is_dir() else Path(__file__).parents[1] / "results"
    own = own / of.out.relative_to(SIMULATED.out)
    if (out / "main.jsonl").exists() or not (own / "main.jsonl").is_file():
        return
    check_output_folder("--out", out)
    for name in ("settings.json", "main.jsonl"):
        shutil.copyfile(own / name, out / name)
    console.print(f"{out} has no rows: copied those of this package", soft_wrap=True)


def _name(row: Row) -> tuple[str, str, int]:
    return row["task"], row["method"], row["seed"]


def _order(row: Row) -> tuple[int, str, int, int]:
    """Sort key: FailureBench's tasks, then others; then seeds; then methods."""
    tasks, methods = list(TASKS), list(METHODS)
    place = tasks.index(row["task"]) if row["task"] in tasks else len(tasks)
    return place, row["task"], row["seed"], methods.index(row["method"])


def settings_of(task: str, name: str) -> dict[str, Any]:
    """All settings of a task's preset as JSON, without seed and backend."""
    return RunSettings(task, name, 0, None, preset(name)).to_json()


def fingerprint(settings: dict[str, Any]) -> str:
    """Eight hexadecimal digits: a row's key into `settings.json`."""
    return f"{zlib.crc32(json.dumps(settings, sort_keys=True).encode()):08x}"


def still_valid(out: Path, name: str, console: Console) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of `out` made with the present settings of preset `name`, and the settings.

    Settings that a row's method does not read may differ. Settings of a later version had their
    defaults.

    Raises:
        UserError: a file is damaged, or one run has two rows.
    """
    path = out / "main.jsonl"
    if not path.exists():
        return [], {}
    try:
        for file in (path, out / "settings.json"):
            if fault := fault_of(file, out):
                raise UserError(f"{file}: {fault}")
        rows, made = json_files.read_rows(path, MainRow), _settings_in(out / "settings.json")
    except (SchemaError, UserError) as error:
        raise UserError(f"{error}; move the file away, or choose another --out") from error
    if twice := [name for name, count in Counter(map(_name, rows)).items() if count > 1]:
        told = "{}, {}, seed {}".format(*twice[0])
        raise UserError(f"{path}: two rows are of {told}; remove one of them")
    now = {r["task"]: RunSettings.from_json(settings_of(r["task"], name)) for r in rows}
    good = [r for r in rows if _alike(made.get(r["settings"]), now[r["task"]], r["method"])]
    if old := len(rows) - len(good):
        console.print(f"{path}: left out {old} of {len(rows)} rows, which have other settings")
    return good, {k: made[k].to_json() for k in {r["settings"] for r in good}}


def of_other_settings(out: Path, name: str, console: Console) -> list[Row]:
    """Return the rows of `out`, once `still_valid` checked them, of any preset `name`."""
    if not (out / "main.jsonl").exists():
        return []
    made = _settings_in(out / "settings.json")
    of_preset = lambda row: row["settings"] in made and made[row["settings"]].preset == name
    rows = list(filter(of_preset, json_files.read_rows(out / "main.jsonl", MainRow)))
    others = {row["settings"]: preset(name) for row in rows}
    changed = {
        f"{setting} {text_of(then)} (now {text_of(now)})": None
        for mark, usual in others.items()
        for setting, then, now in differences(made[mark].config, usual)
    }
    if changed:
        told = ", ".join(list(changed)[:6]) + (", ..." if len(changed) > 6 else "")
        console.print(f"showing those {len(rows)}, made with {told}", soft_wrap=True)
    return rows


def _settings_in(path: Path) -> dict[str, RunSettings]:
    """Fingerprint -> settings in a settings.json; empty without the file."""
    saved = json_files.read(path, dict[str, dict[str, Any]]) if path.exists() else {}
    made = {}
    for mark, settings in saved.items():
        try:
            made[mark] = RunSettings.from_json(settings)
        except (SchemaError, UserError) as error:
            raise UserError(f"{path}: {mark}: {error}") from error
    return made


def _alike(made: RunSettings | None, now: RunSettings, method: str) -> bool:
    """Whether a method gives the same numbers with both settings."""
    if made is None:
        return False
    reads = METHODS[method].reads
    own = lambda settings: {k: v for k, v in vars(settings.config).items() if reads(k)}
    return replace(made, config=now.config) == now and own(made) == own(now)


def _complete(plan: Plan, task: str, console: Console) -> list[Row]:
    """Make all rows of one task. Its runs share the compiled evaluations."""
    rows, judge = [], None
    root = plan.runs / task.replace(":", ".") / plan.preset
    config = preset(plan.preset)
    settings = [RunSettings(task, plan.preset, s, plan.backend, config) for s in plan.seeds]
    wanted = [(root / f"seed{s.seed}", s) for s in settings]
    for group in [wanted] if plan.together else [[one] for one in wanted]:
        with start_runs(group, console, resume=True) as runs:
            judge = judge or Judge(runs[0], config)
            results = all_phases(runs, judge, plan.methods)
        for run, own in zip(runs, results, strict=True):
            rows += [_row(run, result, plan.preset) for result in own]
    return rows


def _row(run: Run, result: Row, name: str) -> Row:
    """The figures' fields of a result, and the command that makes it again."""
    task, method, seed = (result[k] for k in ("task", "method", "seed"))
    figure = "--figure robot" if name == ROBOT.preset else f"--method {method}"
    words = "run" if method in MAIN else f"reproduce {figure} --seeds 1"
    git = result.get("git")  # older versions wrote it in the folder only
    git = git or json_files.read(run.path / ENVIRONMENT, Environment).get("git") or {}
    return {k: result.get(k) for k in FIELDS} | {
        "command": f"farl {words} --task {task} --preset {name} --seed {seed}",
        "git": git.get("commit"),
        "settings": fingerprint(settings_of(task, name)),
    }


def show(
    rows: Sequence[Row], figures: Sequence[str], out: Path, command: str, console: Console
) -> None:
    """Print tables and draw figures of rows.

    Raises:
        UserError: no seed has rows of both main methods.
    """
    paper, stored = read_paper(), out / "main.jsonl"
    by_task = group(comparable(rows, console))
    if not by_task:
        raise UserError(
            f"{stored} has no seed of both {' and '.join(MAIN)} with the present settings; run "
            "farl reproduce without --stored, or choose another --out or --preset"
        )
    shown = robot_table if "robot" in figures else main_table
    for line in shown.tables(by_task, paper):
        console.print(line, highlight=False, soft_wrap=isinstance(line, str))
    drawn = {"failures": failures_figure, "returns": returns_figure, "robot": robot_figure}
    for name in figures:
        draw = drawn[name]
        with decoration(f"figure {name}", f"farl reproduce --stored --out {out} draws it"):
            figure = draw(by_task, paper, f"{command}; command of each run: {stored}")
            console.print(f"figure: {save(figure, out, name)}", highlight=False, soft_wrap=True)


def comparable(rows: Sequence[Row], console: Console) -> list[Row]:
    """Keep tasks and seeds with rows of both main methods, and print the others."""
    known = {_name(row) for row in rows}
    complete = lambda row: all((row["task"], method, row["seed"]) in known for method in MAIN)
    if alone := sorted({(row["task"], row["seed"]) for row in rows if not complete(row)}):
        names = ", ".join(f"{task} seed {seed}" for task, seed in alone)
        console.print(f"not drawn because {' or '.join(MAIN)} is missing: {names}", soft_wrap=True)
    return [row for row in rows if complete(row)]


def group(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """task -> method -> rows by seed, tasks in order of appearance."""
    by_task: dict[str, dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda r: r["seed"]):
        by_task.setdefault(row["task"], {m: [] for m in MAIN})
        by_task[row["task"]].setdefault(row["method"], []).append(row)
    return by_task
