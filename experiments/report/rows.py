"""Finished runs for a report, and the checks that make them comparable.

Runs that cannot be compared are left out and listed by name. Different settings are not averaged.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.report.files import HORIZONS, SWEEP, check_found, closed_folders, find
from experiments.runs.files import RESULT, read_curve, read_result, read_saved
from experiments.runs.folder import CONFIG, ENVIRONMENT
from experiments.runs.presets import FORMER, retired
from experiments.runs.records import Environment
from farl_jax.config import FarlConfig
from farl_jax.methods import MAIN, METHODS
from farl_jax.schema import SchemaError
from farl_jax.storage import json_files

VARIED = ("constraint.limit",)
"""Settings that always form separate groups: the cost limit of the safe-RL baselines."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One finished run of one method."""

    name: str
    """Its folder."""
    row: Row
    """result.json."""
    settings: Mapping[str, Any]
    """Dotted name -> value of all settings that the method reads, also retired ones. Settings that
    an older version lacked have their defaults, or what that version did instead."""
    env: Row = field(default_factory=dict)
    """env.json: versions, machine, command."""
    variant: str = ""
    """Distinguishing settings within its method, for example `constraint.limit=0.05`."""

    @property
    def key(self) -> str:
        """Method and variant: the name of its group within a task."""
        return f"{self.row['method']} {self.variant}".strip()


@dataclass
class Findings:
    """Notes of a report on its input: (name, text), in order of discovery."""

    left_out: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)


Groups = dict[str, dict[str, list[Entry]]]
"""task -> key -> entries by seed."""


def collect(folders: Sequence[Path], by: Sequence[str], findings: Findings) -> Groups:
    """Group all finished runs below `folders` that pass the checks.

    Args:
        folders: searched for result.json. `find_sweeps` searches the folders of sweeps.
        by: dotted settings whose values form separate groups.
        findings: gets the runs that are left out, and the reasons.
    """
    entries = {}
    for folder in folders:
        findings.left_out.extend(closed_folders(folder))
        paths = list(find(folder, RESULT))
        if not paths and not any(list(find(folder, name)) for name in (SWEEP, *HORIZONS)):
            state = "has no finished run" if os.path.isdir(folder) else "no such folder"
            findings.left_out.append((str(folder), state))
        for path in paths:
            entries.setdefault(path.resolve(), path)
        _list_unfinished(folder, findings)
    found = []
    for path in entries.values():
        try:
            found.append(_read(path, findings))
        except (SchemaError, UserError, OSError) as error:
            text = str(error).replace(f"{path.parent}/", "")
            findings.left_out.append((str(path.parent), text))
    for name in sorted({e.row["method"] for e in found} - set(METHODS)):
        findings.notes.append((name, "not a method of this version, so it has no title"))
    found = _with_variants(found, (*VARIED, *by))
    for check in (_without_repeats, _of_one_budget, _of_one_setting, _of_shared_seeds):
        found = check(found, findings)
    _note_versions(found, findings)
    _note_settings(found, (*VARIED, *by), findings)
    groups: Groups = {}
    for entry in sorted(found, key=lambda e: (e.row["task"], e.key, e.row["seed"])):
        groups.setdefault(entry.row["task"], {}).setdefault(entry.key, []).append(entry)
    return groups


def curve(entry: Entry, findings: Findings) -> list[dict[str, Any]]:
    """The run's online rows of metrics.jsonl with its seed. A damaged file gives a note."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = read_curve(Path(entry.name))
    except SchemaError as error:
        text = str(error).removeprefix(f"{entry.name}/")
        findings.notes.append((entry.name, f"no learning curve: {text}"))
        return []
    findings.notes.extend((entry.name, str(w.message)) for w in caught)
    return [row | {"seed": entry.row["seed"]} for row in rows]


def _read(path: Path, findings: Findings) -> Entry:
    """Read the run of one result.json. SchemaError and UserError say why it cannot be used."""
    check_found(path)
    run = path.parent.parent
    if not (run / CONFIG).exists():
        raise SchemaError(f"not in a run's folder, because there is no {CONFIG}")
    saved = read_saved(run)
    row = read_result(path.parent, saved)
    row.pop("made_from", None)
    env: Row = {}
    try:
        env = json_files.read(run / ENVIRONMENT, Environment)
    except SchemaError as error:
        findings.notes.append((str(path.parent), f"versions and command unknown: {error}"))
    former = FORMER if retired(saved) else {}
    settings = _flatten(asdict(FarlConfig())) | former | _flatten(saved["config"])
    settings["backend"] = row["backend"]  # None in config.json: chosen by the machine
    if method := METHODS.get(row["method"]):
        settings = {k: v for k, v in settings.items() if method.reads(k.split(".")[0])}
    if git := row.get("git"):  # env.json may be of another commit
        env = {**env, "git": git}
    return Entry(str(path.parent), row, settings, env)


def _list_unfinished(folder: Path, findings: Findings) -> None:
    """List methods that a run has begun but not finished."""
    for path in find(folder, "metrics.jsonl"):
        run = path.parent.parent
        if (run / CONFIG).is_file() and not (path.parent / RESULT).is_file():
            findings.left_out.append((str(path.parent), f"not finished: it has no {RESULT}"))


def _flatten(tree: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {name: tree}
    parts = [_flatten(v, f"{name}.{k}" if name else k) for k, v in tree.items()]
    return {k: v for part in parts for k, v in part.items()}


def _with_variants(entries: Sequence[Entry], by: Sequence[str]) -> list[Entry]:
    """Name the groups by those settings of `by` that differ within the method."""
    values: dict[tuple[str, ...], set[str]] = {}
    place = lambda e, name: (e.row["task"], e.row["method"], name)
    for entry in entries:
        for name in by:
            if name in entry.settings:
                values.setdefault(place(entry, name), set()).add(str(entry.settings[name]))
    named = []
    for entry in entries:
        own = [name for name in by if len(values.get(place(entry, name), ())) > 1]
        variant = " ".join(f"{name}={entry.settings[name]}" for name in own)
        named.append(replace(entry, variant=variant))
    return named


def _split(
    entries: Sequence[Entry], within: Callable[[Entry], Any], value: Callable[[Entry], Any]
) -> dict[Any, Any]:
    """Group -> its most frequent value; the largest of equally frequent ones."""
    groups: dict[Any, list[Any]] = {}
    for entry in entries:
        groups.setdefault(within(entry), []).append(value(entry))
    return {k: max(sorted(set(v), reverse=True), key=Counter(v).get) for k, v in groups.items()}


def _without_repeats(entries: Sequence[Entry], findings: Findings) -> list[Entry]:
    """Keep one run for each seed, budget and setting of a group: the first one found."""
    seen: dict[Any, str] = {}
    kept = []
    for entry in entries:
        settings = tuple(sorted((k, str(v)) for k, v in entry.settings.items()))
        same = (*(entry.row[k] for k in ("task", "seed", "online_steps")), entry.key, settings)
        first = seen.setdefault(same, entry.name)
        if first == entry.name:
            kept.append(entry)
        else:
            text = f"the same task, method, seed and settings as {first}"
            findings.left_out.append((entry.name, text))
    return kept


def _of_one_budget(entries: Sequence[Entry], findings: Findings) -> list[Entry]:
    """Keep runs with the most frequent budget of their task."""
    budget = lambda e: budget_of(e.row, e.settings.get("online.episodes"))
    usual, kept = _split(entries, lambda e: e.row["task"], budget), []
    for entry in entries:
        (number, unit), most = budget(entry), usual[entry.row["task"]]
        if (number, unit) == most:
            kept.append(entry)
        else:
            told = f"{most[0]:,}" if unit == most[1] else f"{most[0]:,} {most[1]}"
            text = f"another budget: {number:,} {unit}, but most of its task have {told}"
            findings.left_out.append((entry.name, text))
    return kept


def budget_of(row: Row, episodes: int | None) -> tuple[int, str]:
    """(number, unit) of a run's budget: its episodes, if `online.episodes` set them, or steps."""
    if episodes is not None:
        return row["episodes"], "episodes"
    return row["online_steps"], "online steps"


def _of_one_setting(entries: Sequence[Entry], findings: Findings) -> list[Entry]:
    """Keep runs with the most frequent settings of their group."""
    group = lambda e: (e.row["task"], e.key)
    signature = lambda e: tuple((k, str(v)) for k, v in sorted(e.settings.items()))
    usual, kept = _split(entries, group, signature), []
    for entry in entries:
        most, own = dict(usual[group(entry)]), dict(signature(entry))
        other = [k for k in {**own, **most} if own.get(k) != most.get(k)]
        if not other:
            kept.append(entry)
            continue
        name = other[0]
        more = f" and {len(other) - 1} more" if len(other) > 1 else ""
        values = f"{own.get(name, 'absent')}, in most of its group {most.get(name, 'absent')}"
        text = f"other settings: {name} is {values}{more}"
        hint = f"; --by {name} keeps both" if name in own and name in most else ""
        findings.left_out.append((entry.name, text + hint))
    return kept


def _of_shared_seeds(entries: Sequence[Entry], findings: Findings) -> list[Entry]:
    """Keep seeds that every main method of the task has, and note methods that lack one."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for entry in entries:
        seeds.setdefault(entry.row["task"], {}).setdefault(entry.key, set()).add(entry.row["seed"])
    shared = {}
    method = lambda key: key.split(" ")[0]
    for task, groups in seeds.items():
        main = [set().union(*(s for k, s in groups.items() if method(k) == m)) for m in MAIN]
        main = [own for own in main if own]
        shared[task] = set.intersection(*main) if main else set.union(*groups.values())
        for key, own in groups.items():
            if lacking := sorted(shared[task] - own):
                numbers = ", ".join(map(str, lacking))
                text = f"lacks seed {numbers}; compared on its other seeds"
                findings.notes.append((f"{task}, {key}", text))
    kept = []
    for entry in entries:
        task, seed = entry.row["task"], entry.row["seed"]
        if seed in shared[task]:
            kept.append(entry)
        else:
            others = {method(k) for k in seeds[task]} & set(MAIN)
            has = {method(k) for k, own in seeds[task].items() if seed in own}
            without = [m for m in MAIN if m in others - has]
            text = f"seed {seed} is missing from {', '.join(without)}, so there is no pair"
            findings.left_out.append((entry.name, text))
    return kept


def _note_versions(entries: Sequence[Entry], findings: Findings) -> None:
    """Note runs of one task with different commits or packages, or with uncommitted changes."""
    for task in sorted({e.row["task"] for e in entries}):
        own = [e for e in entries if e.row["task"] == task]
        root = os.path.commonpath([os.path.abspath(Path(e.name).parent) for e in own])
        commit = lambda e: ((e.env.get("git") or {}).get("commit") or "unknown")[:12]
        packages = lambda e: str(sorted((e.env.get("packages") or {}).items()))
        for what, value in (("git commits", commit), ("package versions", packages)):
            if len(kinds := dict.fromkeys(map(value, own))) > 1:
                names = [f"{v}: {_names([e for e in own if value(e) == v], root)}" for v in kinds]
                shown = names if what == "git commits" else [n.split("]: ")[-1] for n in names]
                text = f"runs of different {what}, below {root}: {'; '.join(shown)}"
                findings.notes.append((task, text))
        if unclean := [e for e in own if (e.env.get("git") or {}).get("dirty")]:
            findings.notes.append(
                (task, f"uncommitted changes, below {root}: {_names(unclean, root)}")
            )


def _note_settings(entries: Sequence[Entry], by: Sequence[str], findings: Findings) -> None:
    """Note groups of one task with different settings that both methods read."""
    first: dict[str, Entry] = {}
    told = set()
    for entry in sorted(entries, key=lambda e: (e.row["task"], e.row["method"] not in MAIN, e.key)):
        task, other = entry.row["task"], first.setdefault(entry.row["task"], entry)
        shared = [k for k in entry.settings if k in other.settings and k not in by]
        differing = [k for k in shared if entry.settings[k] != other.settings[k]]
        if differing and (task, entry.key) not in told:
            told.add((task, entry.key))
            words = [f"{k} {entry.settings[k]} against {other.settings[k]}" for k in differing]
            text = f"other settings than {other.key}: {', '.join(words)}"
            findings.notes.append((f"{task}, {entry.key}", text))


def _names(entries: Iterable[Entry], root: str) -> str:
    return ", ".join(os.path.relpath(e.name, root) for e in entries)
