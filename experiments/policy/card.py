"""`farl card`: a model card of a trained policy, from the files of its run. No code of it runs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.known import shown
from experiments.runs.environment import is_own_environment
from experiments.runs.files import RESULT, read_settings
from experiments.runs.folder import ENVIRONMENT, check_data
from experiments.runs.presets import PRESETS, RunSettings, differences, preset, text_of
from experiments.runs.provenance import read_result
from experiments.runs.records import Environment
from farl_jax.methods import BASELINE, METHODS, find_method
from farl_jax.storage import json_files
from farl_jax.storage.files import write_text

CARD = "card.md"


def write_card(path: Path, method: str) -> Path:
    """Write `<run>/<method>/card.md`, and return its path.

    Raises:
        UserError, SchemaError: there is no such run, or the method is not finished; one line.
    """
    find_method(method)
    check_data(path)
    if not (path / "config.json").is_file():
        raise UserError(f"no run at {path}; start one with `farl run` or `farl demos`")
    settings, _ = read_settings(path)
    if not (path / method / RESULT).is_file():
        raise UserError(
            f"{path} has no result of {method}; finish it with farl online {path} --method {method}"
        )
    known = (path / ENVIRONMENT).is_file()
    about = json_files.read(path / ENVIRONMENT, Environment) if known else {}
    row = read_result(path, settings, method)
    other = path / BASELINE / RESULT
    base = read_result(path, settings, BASELINE) if method != BASELINE and other.is_file() else None
    card = path / method / CARD
    write_text(card, "\n".join(_lines(path, settings, row, base, about)) + "\n")
    return card


def _lines(
    path: Path,
    settings: RunSettings,
    row: dict[str, Any],
    base: dict[str, Any] | None,
    about: dict[str, Any],
) -> Iterator[str]:
    """The lines of the card. `base` is the row of the baseline in the same run, if finished."""
    method, title = row["method"], METHODS[row["method"]].title
    yield from (f"# {title} on `{settings.task}`, seed {settings.seed}", "")
    yield "A policy trained by FARL-JAX: offline from demonstrations, then online with exploration."
    yield from (_gate_words(method), "", "## Results", "")
    yield from _results(row, base)
    yield from ("", "Returns are normalised: 0 is a random policy, 100 the scripted expert.")
    yield "Failures were counted during training, with exploration. An episode counts once."
    yield "Evaluations use deterministic actions on keys that training did not see."
    if row.get("causes"):
        yield from ("", "Failure episodes by what the gate had done:", "")
        yield from (f"- {name.replace('_', ' ')}: {n:,}" for name, n in row["causes"].items())
    yield from ("", "## Use", "", "```python", "from experiments import load_run", "")
    own = f", task={settings.task!r}" if ":" in settings.task else ""
    yield f'policy = load_run("{path}"{own}).safe_policy("{method}")'
    yield "action, memory, info = policy.act(obs, policy.start())"
    yield from ("```", "", "## Limits", "", *_limits(settings, row), "", "## Training", "")
    yield from _training(settings, row, about)
    yield from ("", "Citation: Failure-Aware Offline-to-Online Reinforcement Learning,")
    yield "arXiv 2601.07821, and FARL-JAX. Licence of the code: Apache 2.0."


def _gate_words(method: str) -> str:
    spec = METHODS[method]
    gate = {
        "none": "No gate watches its actions.",
        "world_model": "A gate watches its actions: a world model predicts failures.",
        "backup": "A gate watches its actions: it predicts whether recovery could still help.",
        "critic": "A gate watches its actions: a risk critic predicts failures.",
    }[spec.gate]
    return f"{gate} Failures are a cost with a limit." if spec.constrained else gate


def _results(row: dict[str, Any], base: dict[str, Any] | None) -> Iterator[str]:
    """The table of results, beside the baseline's."""
    share = lambda r, part, whole: f"{r[part]:,} of {r[whole]:,}"
    facts = {
        "failure episodes in training": lambda r: share(r, "failure_episodes", "episodes"),
        "failing steps": lambda r: f"{r['failing_steps']:,}",
        "recovered steps": lambda r: share(r, "recovered_steps", "online_steps"),
        "return of the offline policy": lambda r: f"{r['initial_return']:.1f}",
        "return at the end": lambda r: (
            f"{r['final_return']:.1f} (s.e. {shown(r['final_return_se'], '.1f')})"
        ),
        "success at the end": lambda r: f"{r['final_success']:.2f}",
        "failure rate at the end": lambda r: f"{r['final_failure_rate']:.3f}",
        "return without the gate": lambda r: f"{r['final_return_without_gate']:.1f}",
    }
    rows = [row] if base is None else [row, base]
    titles = [METHODS[r["method"]].title for r in rows]
    yield f"| | {' | '.join(titles)} |"
    yield f"|---|{'---|' * len(rows)}"
    for name, text in facts.items():
        yield f"| {name} | {' | '.join(text(r) for r in rows)} |"
    if base is not None:
        yield from ("", f"{titles[1]} is of the same run, from the same offline checkpoint.")


def _limits(settings: RunSettings, row: dict[str, Any]) -> Iterator[str]:
    yield "- It is one seed. Seeds differ much."
    if row["failure_episodes"]:
        yield "- It failed in training, and it can fail again."
    if not is_own_environment(settings.task):
        yield "- It was trained in simulation, and has not acted on a real robot."
    yield "- It knows the observations of its task only, in that order and those units."


def _training(settings: RunSettings, row: dict[str, Any], about: dict[str, Any]) -> Iterator[str]:
    git, packages = row.get("git") or about.get("git") or {}, about.get("packages") or {}
    facts = {
        "steps": f"{row['online_steps']:,} online steps in {row['wall_seconds']:,.0f} s",
        "preset": f"{settings.preset}, physics {row['backend']}",
        "eps_safe": shown(row.get("max_risk"), ".4g"),
        "commit": git.get("commit", "unknown") + (" (changed)" if git.get("dirty") else ""),
        "machine": f"{about.get('platform', 'unknown')}, {about.get('cpu_count') or '?'} cores",
        "versions": ", ".join(f"{name} {v}" for name, v in packages.items() if v) or "unknown",
        "command": " ".join(map(str, about.get("command") or ())) or "unknown",
    }
    yield from (f"- {name}: {text}" for name, text in facts.items())
    if changes := list(_changes(settings)):
        yield from ("", "Settings other than the preset's:", "")
        yield from (f"- `{name}` = `{value}`" for name, value in changes)


def _changes(settings: RunSettings) -> Iterator[tuple[str, str]]:
    """(dotted name, value) of the settings that differ from the preset."""
    if settings.preset not in PRESETS:
        return
    usual = preset(settings.preset)
    for name, value, _ in differences(settings.config, usual):
        yield name, text_of(value)
