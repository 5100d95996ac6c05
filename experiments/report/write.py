"""`farl report`: one page and its figures from the files of finished runs, without training."""

import io
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.arguments import ReportArgs
from experiments.errors import UserError
from experiments.figures import paper as paper_figures
from experiments.figures import style
from experiments.figures.decoration import decoration
from experiments.figures.runs import diagnosis_figure, horizon_figure
from experiments.process.console import command_typed, warn
from experiments.process.outputs import check_output_folder, write_rows
from experiments.report import figures
from experiments.report import page as report_page
from experiments.report.page import Content, Film, Picture
from experiments.report.rows import Findings, Groups, collect, curve
from experiments.report.sweeps import SweepTable, find_horizons, find_sweeps
from experiments.runs.records import Diagnosis
from farl_jax.methods import MAIN, OURS, RIVALS
from farl_jax.schema import SchemaError
from farl_jax.storage import files, json_files

PAGE, ROWS = "index.html", "rows.jsonl"
ABLATIONS = (*RIVALS, "sooper", "no_recovery")
TRADE_OFFS = ("constraint.limit", "safety.max_risk")
"""Swept settings whose cells are shown with the Pareto front."""
AGAIN = "the same command draws it again"
FILM_BYTES = 7_500_000  # of all films: 10 MB as text
SHEET_PIXELS = 50_000_000
SHEET_WIDTH = 1100


def report(args: ReportArgs, console: Console) -> Path:
    """Write the page, and print on stderr what it leaves out."""
    command = command_typed()
    findings = Findings()
    groups = collect(args.runs, args.by, findings)
    sweeps = find_sweeps(args.runs, findings)
    horizons = find_horizons(args.runs, findings)
    if not (groups or sweeps or horizons):
        reasons = [f"{name}: {text}" for name, text in findings.left_out[:3]]
        more = len(findings.left_out) - len(reasons)
        raise UserError(
            f"nothing to report: {'; '.join(reasons) or 'no folder was given'}"
            + (f"; and {more} more" if more else "")
        )
    check_output_folder("--out", args.out)
    pictures = _draw(groups, sweeps, args.out, command, findings)
    pictures += _horizons(horizons, args.out)
    films = _films(groups, findings)
    paper = paper_figures.read_paper()
    content = Content(groups, sweeps, pictures, films, findings, paper, command)
    _write_rows(groups, args.out / ROWS)
    page = args.out / PAGE
    html = report_page.page(content).encode("utf-8", "xmlcharrefreplace").decode()
    files.write_text(page, html)
    for name, text in (*findings.left_out, *findings.notes):
        warn(f"{name}: {text}")
    runs = sum(len(entries) for task in groups.values() for entries in task.values())
    console.print(
        f"report: {page}  {page.stat().st_size / 1e6:.1f} MB, {runs} runs, "
        f"{len(findings.left_out)} left out",
        highlight=False,
        soft_wrap=True,
    )
    return page


def _draw(
    groups: Groups, sweeps: Sequence[SweepTable], out: Path, command: str, findings: Findings
) -> list[Picture]:
    """Draw all figures of these rows into `out`. A figure that fails is left out with a warning."""
    pictures = []

    def add(section: str, name: str, caption: str, draw: Callable[..., Any], *given: Any) -> None:
        with decoration(f"figure {name}", AGAIN):
            if (figure := draw(*given, command)) is not None:
                path = style.save(figure, out, name)
                pictures.append(Picture(section, path, report_page.CAPTIONS[caption]))

    rows = {t: {k: [e.row for e in es] for k, es in keys.items()} for t, keys in groups.items()}
    paper = paper_figures.read_paper()
    failures, returns = paper_figures.failures_figure, paper_figures.returns_figure
    main, ablations = _split(rows)
    if main:
        add("failures", "failures", "failures", failures, main, paper)
        add("returns", "returns", "returns", returns, main, paper)
    if ablations:
        heading = "Ablations: return before (hollow) and after fine-tuning (filled)"
        changed = partial(returns, heading=heading)
        add("ablations", "ablations_returns", "returns", changed, ablations, paper)
        add("ablations", "ablations_failures", "failures", failures, ablations, paper)
    if points := _with_trade_offs(rows, sweeps):
        add("pareto", "pareto", "pareto", figures.pareto_figure, points)
    for task, keys in groups.items():
        curves = {k: [c for e in es if (c := curve(e, findings))] for k, es in keys.items()}
        if curves := {k: seeds for k, seeds in curves.items() if seeds}:
            draw, name = figures.learning_figure, f"learning_{_file(task)}"
            add("curves", name, "curves", draw, task, curves)
    if any(e.row.get("causes") for t in groups.values() for es in t.values() for e in es):
        add("causes", "causes", "causes", figures.causes_figure, rows)
    for number, sweep in enumerate(sweeps, 1):
        for task in sweep.groups():
            draw, name = figures.sweep_figure, f"sweep_{number}_{_file(task)}"
            add("sweeps", name, "sweeps", draw, sweep, task)
    return pictures + _diagnoses(groups, out, command, findings)


def _split(rows: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """(comparison with baselines, ablations of FARL), each task -> key -> rows. Both have MAIN."""
    changed = lambda key: key.split(" ")[0] in ABLATIONS or key.startswith(f"{OURS} ")
    main = {t: {k: r for k, r in keys.items() if not changed(k)} for t, keys in rows.items()}
    ablations = {
        t: {k: r for k, r in keys.items() if changed(k) or k in MAIN}
        for t, keys in rows.items()
        if any(map(changed, keys))
    }
    return {t: keys for t, keys in main.items() if keys}, ablations


def _with_trade_offs(rows: Mapping[str, Any], sweeps: Sequence[SweepTable]) -> dict[str, Any]:
    """Panels: the runs of each task, and each sweep over limits or thresholds only."""
    panels = {task: dict(keys) for task, keys in rows.items()}
    for sweep in sweeps:
        if sweep.settings and set(sweep.settings) <= set(TRADE_OFFS):
            panels |= {f"{task}, {sweep.name}": keys for task, keys in sweep.groups().items()}
    return panels


def _horizons(studies: Sequence[tuple[Path, Mapping[str, Any]]], out: Path) -> list[Picture]:
    """Draw each horizon study from its rows. The figure names the study's command."""
    pictures = []
    for number, (source, study) in enumerate(studies, 1):
        name = f"horizon_{number}_{_file(study['task'])}"
        with decoration(f"figure {name}", AGAIN):
            for suffix in (".pdf", ".png"):
                path = horizon_figure(out / f"{name}{suffix}", study)
            caption = f"{report_page.CAPTIONS['horizon']} From {source}."
            pictures.append(Picture("horizon", path, caption))
    return pictures


def _diagnoses(groups: Groups, out: Path, command: str, findings: Findings) -> list[Picture]:
    """Draw the diagnosis of the first run of each group that has one."""
    pictures = []
    for task, keys in groups.items():
        for key, entries in keys.items():
            found = [p for e in entries if (p := Path(e.name) / "diagnosis.json").exists()]
            if not found:
                continue
            try:
                saved = _numbers(json_files.read(found[0], Diagnosis))
            except SchemaError as error:
                text = str(error).removeprefix(f"{found[0]}: ")
                findings.left_out.append((str(found[0]), f"not a diagnosis: {text}"))
                continue
            name = f"diagnosis_{_file(task)}_{_file(key)}"
            heading = f"{task}, {style.title_of(key)}, {found[0].parent}"
            with decoration(f"figure {name}", AGAIN):
                for suffix in (".pdf", ".png"):
                    path = out / f"{name}{suffix}"
                    diagnosis_figure(path, saved["pairs"], saved["max_risk"], heading, command)
                pictures.append(Picture("foresight", path, report_page.CAPTIONS["foresight"]))
    return pictures


def _films(groups: Groups, findings: Findings) -> list[Film]:
    """The first film of each group, as long as the page stays small."""
    films, room = [], FILM_BYTES
    for task, keys in groups.items():
        for key in style.in_order(keys):
            folders = [Path(entry.name) for entry in keys[key]]
            files = [f / n for f in folders for n in ("film.mp4", "film.gif") if (f / n).is_file()]
            sheets = (_small(f / "sheet.png", findings) for f in folders)
            sheet = next(filter(None, sheets), None)
            if not (files or sheet):
                continue
            size = files[0].stat().st_size if files else 0
            if size > room:
                findings.notes.append(
                    (str(files[0]), "film left out, because the page would be too large")
                )
                continue
            room -= size
            film = files[0] if files else None
            films.append(Film(task, key, str(film.parent if film else folders[0]), film, sheet))
    return films


def _small(path: Path, findings: Findings) -> bytes | None:
    """A contact sheet as a small JPEG, or None. A file that is no PNG is left out by name."""
    from PIL import Image

    if not path.is_file():
        return None
    try:
        with Image.open(path, formats=("PNG",)) as image:  # other formats may start programs
            if image.width * image.height > SHEET_PIXELS:
                raise ValueError(f"{image.width} x {image.height} pixels are too many")
            image, buffer = image.convert("RGB"), io.BytesIO()
        image.thumbnail((SHEET_WIDTH, 10 * SHEET_WIDTH))
        image.save(buffer, "JPEG", quality=82)
        return buffer.getvalue()
    except Exception as error:  # a foreign file may raise any
        findings.left_out.append((str(path), f"no picture: {error}"))
        return None


def _write_rows(groups: Groups, path: Path) -> None:
    """Write the rows of the table, one line per run."""
    entries = [e for keys in groups.values() for group in keys.values() for e in group]
    rows = [{**e.row, "group": e.key, "run": e.name, "git": e.env.get("git")} for e in entries]
    write_rows(path, rows)


def _file(name: str) -> str:
    """A task or key as a part of a file name that every disk allows."""
    plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    if name.isascii() and len(name) <= 60:
        return plain
    return f"{plain[:50]}_{zlib.crc32(name.encode()):08x}"


def _numbers(tree: Any) -> Any:
    """Replace JSON's null by NaN."""
    if isinstance(tree, dict):
        return {k: _numbers(v) for k, v in tree.items()}
    return (
        [_numbers(v) for v in tree]
        if isinstance(tree, list)
        else math.nan
        if tree is None
        else tree
    )
