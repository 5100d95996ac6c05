"""Pieces of the report's page: cells, sortable tables, warnings, the reproducibility box."""

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from experiments.comparison import against_baseline, interval
from experiments.figures.style import look, title_of
from experiments.report.rows import Findings, Groups, Row

HEADLINE = (
    *("task", "method", "seeds", "episodes", "failure\nepisodes", "failure\nrate"),
    "failures\noffline",
    *("fewer\nfailures", "recovered\nsteps", "return,\nbefore → after", "return\ndifference"),
    "success\nafter",
)
RANKS = ("task", "method", "FARL minus it,\nours", "the same,\npaper", "seeds", "result")
CELLS = ("task", "cell", "seeds", "failure\nepisodes", "fewer\nfailures", "final\nreturn")
_ENVIRONMENTS = ("runs", "seeds", "command", "commit", "versions", "machine")
_LEFT = {"task", "method", "seeds", "result", "cell", *_ENVIRONMENTS}
_PACKAGES = ("jax", "flax", "mujoco", "mujoco-mjx", "metaworld", "numpy")

READING = """<ul>
<li>A <em>failure episode</em> has at least one failing step. Failures are counted during training,
with exploration, and do not end an episode. The <em>failure rate</em> is failure episodes per
episode.</li>
<li><em>Normalised return</em> is 100 (R - R_random) / (R_expert - R_random), from deterministic
evaluations on fixed keys. Each method has its own gate.</li>
<li><em>Recovered steps</em> are steps of the recovery policy, in percent of online steps.</li>
<li>Intervals resample seeds 10,000 times and take the middle 95 %. They cannot be wider than the
seeds' range, so three seeds give too narrow ones. One seed has no interval.</li>
<li>All methods of a task start from the same offline checkpoint of each seed. They are compared on
their common seeds.</li>
</ul>"""

Cell = tuple[str, str, str]
"""(class, value to sort by, HTML)."""


def text(shown: str, *, wrap: bool = False) -> Cell:
    """A cell of text."""
    return ("text wrap" if wrap else "text", shown, escape(shown))


def number(value: float | None, shape: str, below: str | None = None, scale: float = 1.0) -> Cell:
    """A cell of `value` times `scale`, with a smaller line below; a dash for None."""
    if value is None:
        return ("", "", "–")
    small = f"<small>{escape(below)}</small>" if below and below != NO_INTERVAL else ""
    return ("", repr(float(value)), escape(shape.format(scale * value)) + small)


NO_INTERVAL = "no interval"


def limits(pair: tuple[float, float] | None, shape: str, scale: float = 1.0) -> str:
    """An interval as text."""
    return NO_INTERVAL if pair is None else shape.format(*(scale * v for v in pair))


def seeds(numbers: Sequence[int]) -> str:
    """Seeds as text."""
    return f"seed{'' if len(numbers) == 1 else 's'} {', '.join(map(str, numbers))}"


def table(heads: Sequence[str], lines: Sequence[Sequence[Cell]]) -> str:
    """A table that can be sorted by any column."""
    left = lambda head: ' class="text"' if head in _LEFT else ""
    top = "".join(
        f'<th scope="col"{left(h)}><button type="button">{escape(h)}</button></th>' for h in heads
    )
    cell = lambda c: f'<td class="{c[0]}" data-value="{escape(c[1])}">{c[2]}</td>'
    body = "".join(f"<tr>{''.join(map(cell, line))}</tr>" for line in lines)
    return (
        f'<div class="scroll"><table class="sortable"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def headline(task: str, key: str, line: Mapping[str, Any], wanted: int) -> list[Cell]:
    """One line of the headline table. The task has `wanted` seeds."""
    few = f"<small>of {wanted}</small>" if len(line["seeds"]) < wanted else ""
    numbers = ", ".join(map(str, line["seeds"]))
    below = lambda name, shape, scale=1.0: limits(line[f"{name}_interval"], shape, scale)
    change = f"{line['initial_return']:.1f} → {{:.1f}}"
    steps = f"<small>{line['online_steps']:,} steps</small>"
    return [
        ("text", task, escape(task) + steps),
        ("text", title_of(key), _swatch(key) + escape(title_of(key))),
        ("text", str(len(line["seeds"])), escape(numbers) + few),
        number(line["episodes"], "{:,.0f}"),
        number(
            line["failure_episodes"], "{:,.1f}", below("failure_episodes", "{:,.0f} to {:,.0f}")
        ),
        number(line["failure_rate"], "{:.2f} %", scale=100),
        number(line["offline_failure_episodes"], "{:,.0f}"),
        number(line["reduction"], "{:.1f} %", below("reduction", "{:.0f} to {:.0f} %")),
        number(line["recovered_share"], "{:.1f} %", scale=100),
        number(line["final_return"], change, below("final_return", "{:.1f} to {:.1f}")),
        number(
            line["return_difference"], "{:+.1f}", below("return_difference", "{:+.1f} to {:+.1f}")
        ),
        number(line["final_success"], "{:.1f} %", scale=100),
    ]


def cell_line(task: str, key: str, groups: Mapping[str, Sequence[Row]]) -> list[Cell]:
    """One line of a sweep's table. Failures are compared with the baseline of the same settings."""
    rows, paired = groups[key], against_baseline(groups, key)
    failures, returns = ([row[n] for row in rows] for n in ("failure_episodes", "final_return"))
    fewer = limits(paired["reduction_interval"], "{:.0f} to {:.0f} %")
    return [
        text(task),
        ("text wrap", title_of(key), _swatch(key) + escape(title_of(key))),
        text(", ".join(str(row["seed"]) for row in rows)),
        number(np.mean(failures), "{:,.1f}", limits(interval(failures), "{:,.0f} to {:,.0f}")),
        number(paired["reduction"], "{:.1f} %", fewer),
        number(np.mean(returns), "{:.1f}", limits(interval(returns), "{:.1f} to {:.1f}")),
    ]


def warnings(findings: Findings) -> str:
    """Runs that were left out, and notes on the others, by name; empty without any."""
    blocks = [
        f"<h3>{head}</h3><ul>"
        + "".join(f"<li><code>{escape(n)}</code>: {escape(t)}</li>" for n, t in found)
        + "</ul>"
        for head, found in (
            (f"Left out: {len(findings.left_out)}", findings.left_out),
            (f"Kept, with a note: {len(findings.notes)}", findings.notes),
        )
        if found
    ]
    if not blocks:
        return ""
    return f'<section class="warnings" id="warnings"><h2>Warnings</h2>{"".join(blocks)}</section>'


def files(path: Path) -> str:
    """Links to a figure's files, which are beside the page."""
    names = (path.with_suffix(suffix).name for suffix in (".png", ".pdf"))
    return ", ".join(f'<a href="{escape(name)}">{escape(name)}</a>' for name in names)


def environments(groups: Groups) -> str:
    """One line for all runs of the same command, code and machine."""
    lines: dict[tuple[str, ...], list[Any]] = {}
    for keys in groups.values():
        for entries in keys.values():
            for entry in entries:
                lines.setdefault(_origin(entry.env), []).append(entry)
    body = []
    for (command, commit, versions, machine), entries in lines.items():
        runs = ", ".join(dict.fromkeys(str(Path(e.name).parent) for e in entries))
        own = ", ".join(map(str, sorted({e.row["seed"] for e in entries})))
        methods = ", ".join(dict.fromkeys(e.row["method"] for e in entries))
        name = f"<code>{escape(runs)}</code><small>{escape(methods)}</small>"
        shown = f"<code>{escape(command)}</code>"
        body.append(
            [
                ("text wrap", runs, name),
                text(own),
                ("text wrap", command, shown),
                text(commit, wrap=True),
                text(versions, wrap=True),
                text(machine, wrap=True),
            ]
        )
    return table(_ENVIRONMENTS, body) if body else ""


def command_of(env: Row) -> str:
    """The command of an env.json, as typed in a shell."""
    words = env.get("command")
    if not words:
        return "unknown"
    first = Path(str(words[0])).name
    return shlex.join(["farl" if first in ("cli.py", "farl") else first, *map(str, words[1:])])


def _origin(env: Row) -> tuple[str, str, str, str]:
    """(command, commit, versions, machine) of an env.json."""
    git, packages, device = (env.get(name) or {} for name in ("git", "packages", "device"))
    commit = str(git.get("commit") or "unknown")[:12]
    commit += " with uncommitted changes" if git.get("dirty") else ""
    later = [str((e.get("git") or {}).get("commit"))[:12] for e in env.get("resumed", [])]
    if later:
        commit += f"; opened again {len(later)} times by {', '.join(dict.fromkeys(later))}"
    versions = [f"{name} {packages[name]}" for name in _PACKAGES if packages.get(name)]
    python = [f"Python {env['python']}"] if env.get("python") else []
    machine = [str(env["platform"])] if env.get("platform") else []
    machine += [f"{env['cpu_count']} CPU cores"] if env.get("cpu_count") else []
    machine += [f"{device.get('count')} x {device.get('kind')}"] if device else []
    join = lambda words: ", ".join(words) or "unknown"
    return command_of(env), commit, join(python + versions), join(machine)


def _swatch(key: str) -> str:
    color = look(key)["color"]
    return (
        f'<svg class="swatch" viewBox="0 0 1 1"><rect width="1" height="1" fill="{color}"/></svg>'
    )
