"""The report as one HTML file that contains its style, script, figures and films.

All text from files is escaped with `html.escape`. The page's policy forbids all requests, and all
scripts but its own.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from experiments.comparison import ranks, summary
from experiments.figures.style import in_order, title_of
from experiments.report import parts
from experiments.report.rows import Findings, Groups
from experiments.report.sweeps import SweepTable
from farl_jax.methods import OURS

_HERE = Path(__file__).parent

CAPTIONS = {
    "failures": "Failure episodes during fine-tuning have at least one failing step. The left "
    "panel has the paper's numbers for 1 million steps, the right one ours on its own axis. "
    "Brackets give the change against Uni-O4 with the same seeds.",
    "returns": "Normalised return (0 random policy, 100 scripted expert) of deterministic "
    "evaluations on held-out keys. Each method has its own gate.",
    "pareto": "Final normalised return against failure episodes in training, means over seeds. "
    "Small numbers at points are cost limits or thresholds.",
    "curves": "Evaluated return, cumulative failure episodes, and the share of steps on which "
    "recovery acted, against online environment steps.",
    "causes": "Failure episodes with a gate, by the gate's state before the first failing step. "
    "Numbers are episodes of all seeds together.",
    "foresight": "Failure prediction of the world model: AUROC of a failure i steps ahead, recall "
    "of failure onsets against trigger rate, calibration of the risk, and RMS error of decoded "
    "positions. One seed.",
    "horizon": "The horizon H of the risk on one frozen policy: reduction of failure episodes, "
    "return and trigger rate with the gate; recall and lead time in steps without it. One seed.",
    "sweeps": "Failure episodes and final normalised return of a sweep's cells.",
}
_SECTIONS = (
    ("failures", "Failures beside the paper's"),
    ("returns", "Returns beside the paper's"),
    ("ablations", "Ablations beside the paper's"),
    ("pareto", "Failures against return"),
    ("horizon", "Horizon of the prediction"),
    ("curves", "Learning curves"),
    ("causes", "Failures with a gate, by cause"),
    ("foresight", "Failure prediction of the world model"),
)


@dataclass(frozen=True)
class Picture:
    """A figure: a PNG on the page, and a PDF with the same name beside it."""

    section: str
    path: Path
    caption: str


@dataclass(frozen=True)
class Film:
    """The film of one group."""

    task: str
    key: str
    folder: str
    film: Path | None
    sheet: bytes | None
    """Its frames as a JPEG."""


@dataclass(frozen=True)
class Content:
    """The content of a page."""

    groups: Groups
    sweeps: Sequence[SweepTable]
    pictures: Sequence[Picture]
    films: Sequence[Film]
    findings: Findings
    paper: Mapping[str, Any]
    command: str


def page(content: Content) -> str:
    """Return the whole file."""
    rows = {t: {k: [e.row for e in es] for k, es in ks.items()} for t, ks in content.groups.items()}
    sections = [("summary", "Summary", _summary(rows)), ("table", "All methods", _table(rows))]
    for name, heading in _SECTIONS:
        body = _figures(content, name)
        body += _rank_table(rows, content.paper) if name == "ablations" and rows else ""
        sections.append((name, heading, body))
    sections.append(("films", "Films", _films(content.films)))
    sections.append(("sweeps", "Sweeps", _sweeps(content)))
    sections.append(("reproducibility", "Reproducibility", parts.environments(content.groups)))
    sections.append(("reading", "How to read the numbers", parts.READING))
    sections = [section for section in sections if section[2]]
    style, script = (
        (_HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js")
    )
    policy = (
        "default-src 'none'; img-src data:; media-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    )
    return Template((_HERE / "report.html").read_text(encoding="utf-8")).substitute(
        policy=policy,
        title="FARL report",
        lead=_lead(content.groups, content.sweeps),
        nav="".join(f'<a href="#{name}">{escape(head)}</a>' for name, head, _ in sections),
        body=parts.warnings(content.findings)
        + "".join(f'<section id="{n}"><h2>{escape(h)}</h2>{b}</section>' for n, h, b in sections),
        command=escape(content.command),
        style=style,
        script=script,
    )


def _lead(groups: Groups, sweeps: Sequence[SweepTable]) -> str:
    runs = [entry for keys in groups.values() for entries in keys.values() for entry in entries]
    methods = {entry.row["method"] for entry in runs}
    count = lambda n, word: f"{n} {word}{'' if n == 1 else 's'}"
    words = [count(len(runs), "finished run"), count(len(groups), "task")]
    words += [count(len(methods), "method")] + ([count(len(sweeps), "sweep")] if sweeps else [])
    return f"Failure-aware offline-to-online reinforcement learning: {', '.join(words)}."


def _summary(rows: Mapping[str, Any]) -> str:
    """One sentence per task: ours against the baseline."""
    lines = []
    for task, groups in rows.items():
        if OURS not in groups or (line := summary(groups, OURS))["reduction"] is None:
            continue
        fewer, change = line["reduction"], line["return_difference"]
        limits = parts.limits(line["reduction_interval"], "{:.0f} to {:.0f} %")
        returns = parts.limits(line["return_difference_interval"], "{:+.1f} to {:+.1f}")
        lines.append(
            f"<li><strong>{escape(task)}</strong>: {abs(fewer):.0f} % "
            f"{'fewer' if fewer >= 0 else 'more'} failure episodes than Uni-O4 ({limits}), final "
            f"return {change:+.1f} ({returns}), {parts.seeds(line['paired_seeds'])}.</li>"
        )
    note = '<p class="note">In brackets 95 % bootstrap intervals over seeds, paired by seed.</p>'
    return f"<ul>{''.join(lines)}</ul>{note}" if lines else ""


def _table(rows: Mapping[str, Any]) -> str:
    """The headline table, one line per task and method."""
    lines = []
    for task, groups in rows.items():
        wanted = {row["seed"] for own in groups.values() for row in own}
        for key in in_order(groups):
            line = summary(groups, key)
            lines.append(parts.headline(task, key, line, len(wanted)))
    note = (
        "Means over seeds; small numbers below are 95 % bootstrap intervals over seeds (none with "
        "one seed). Fewer failures and return difference are against Uni-O4, paired by seed. Click "
        "a column's title to sort."
    )
    return parts.table(parts.HEADLINE, lines) + f'<p class="note">{note}</p>' if lines else ""


def _rank_table(rows: Mapping[str, Any], paper: Mapping[str, Any]) -> str:
    """Ranks of the paper's rivals against ours on final return, by task."""
    lines = []
    for task, groups in rows.items():
        for line in ranks(groups, paper["normalized_return"].get(task, {})):
            found, theirs = line["ours"], line["paper"]
            limits = found and parts.limits(found.interval, "{:+.1f} to {:+.1f}")
            lines.append(
                [
                    parts.text(task),
                    parts.text(title_of(line["rival"])),
                    parts.number(found and found.mean, "{:+.1f}", limits),
                    parts.number(theirs, "{:+.1f}"),
                    parts.text(parts.seeds(found.seeds) if found else ""),
                    parts.text(line["text"], wrap=True),
                ]
            )
    note = (
        "FARL's final return minus the rival's, in normalised return, paired by seed. With one "
        "seed the interval is 1.96 standard errors over that seed's evaluation episodes."
    )
    head = "<h3>Do Simple Critic and MPPI rank below FARL on final return?</h3>"
    return f'{head}{parts.table(parts.RANKS, lines)}<p class="note">{note}</p>'


def _figures(content: Content, section: str) -> str:
    """The figures of a section, with captions and links to their files."""
    drawn = f"Drawn by <code>{escape(content.command)}</code>. The runs' commands are listed under "
    drawn += '<a href="#reproducibility">Reproducibility</a>.'
    return "".join(
        f'<figure><img alt="{escape(picture.path.stem)}" src="{_data(picture.path, "image/png")}">'
        f"<figcaption>{escape(picture.caption)} {drawn} Files: {parts.files(picture.path)}."
        "</figcaption></figure>"
        for picture in content.pictures
        if picture.section == section
    )


def _films(films: Sequence[Film]) -> str:
    cells = []
    for film in films:
        name = escape(f"{film.task}: {title_of(film.key)}")
        media = sheet = ""
        if film.film and film.film.suffix == ".mp4":
            source = _data(film.film, "video/mp4")
            media = f'<video controls loop muted playsinline preload="auto" src="{source}"></video>'
        elif film.film:
            media = f'<img alt="{name}" src="{_data(film.film, "image/gif")}">'
        if film.sheet:
            sheet = f'<img alt="frames of {name}" src="{_uri(film.sheet, "image/jpeg")}">'
            sheet = f"<details><summary>Frames</summary>{sheet}</details>" if media else sheet
        folder = escape(film.folder)
        caption = f"<figcaption>{name}, <code>{folder}</code></figcaption>"
        cells.append(f"<figure>{media}{caption}{sheet}</figure>")
    note = (
        '<p class="note">Exploring episodes of the newest policy. A red border marks steps of the '
        "recovery policy. Each film shows one seed, made by <code>farl render</code>.</p>"
    )
    return f'{note}<div class="films">{"".join(cells)}</div>' if cells else ""


def _sweeps(content: Content) -> str:
    body = _figures(content, "sweeps")
    for sweep in content.sweeps:
        lines = [
            parts.cell_line(task, key, keys)
            for task, keys in sweep.groups().items()
            for key in in_order(keys)
        ]
        body += f"<h3>{escape(sweep.name)}</h3>{parts.table(parts.CELLS, lines)}"
    return body


def _data(path: Path, kind: str) -> str:
    return _uri(path.read_bytes(), kind)


def _uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _hash(text: str) -> str:
    """Hash of an inline style or script, for the page's policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
