"""Figures of runs: learning curves, diagnosis, horizon study."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.drawing import new_figure, own_defaults, save
from experiments.figures.style import (
    GREY,
    PALETTE,
    STYLES,
    Row,
    draw_lines,
    dress,
    from_zero,
    line_look,
    look,
    series,
    thousands,
    title_of,
)


@own_defaults()
def comparison_figure(
    path: Path,
    rows_by_method: Mapping[str, Sequence[Row]],
    *,
    title: str = "",
    command: str = "",
    smooth: int = 1,
) -> Path:
    """Draw cumulative failure episodes and normalised return, both against online steps.

    Args:
        path: of the figure. Its suffix chooses the format.
        rows_by_method: by name of `METHODS`, `online` rows of metrics.jsonl: `step`, and any of
            `failure_episodes` (cumulative), `eval_return`, `rollout_return` (0 random, 100 expert;
            missing or null where not measured). An optional `seed` tells several runs apart.
        title: above both panels.
        command: what made the numbers, for the footer.
        smooth: how many evaluations in a row are averaged into one point of a return line.

    Returns:
        `path`. Each seed is a thin line; their mean is thick, where all of them were measured.
        Returns are evaluations, or rollouts' where no method was evaluated; the axis says which.

    Raises:
        ValueError: no method, or one without anything to draw.
    """
    if not rows_by_method:
        raise ValueError("nothing to draw: no method was given")
    figure = new_figure(10.0, 4.3)
    failures, returns = figure.subplots(1, 2, sharex=True)
    seeds_by_method = {name: _by_seed(rows) for name, rows in rows_by_method.items()}
    evaluated = any(
        row.get("eval_return") is not None for r in rows_by_method.values() for row in r
    )
    score, source = ("eval_return", "evaluated") if evaluated else ("rollout_return", "in training")
    for index, (method, seeds) in enumerate(seeds_by_method.items()):
        lines = {"color": look(method)["color"], "linestyle": STYLES[index % len(STYLES)]}
        counts = [from_zero(series(rows, "failure_episodes")) for rows in seeds]
        scores = [_smooth(series(rows, score), smooth) for rows in seeds]
        if not any(len(steps) for steps, _ in (*counts, *scores)):
            raise ValueError(f"{method}: no row has failure_episodes or {score}")
        draw_lines(failures, counts, lines, title_of(method))
        draw_lines(returns, scores, lines, title_of(method))
    _label(failures, "Failures during fine-tuning", "failure episodes (cumulative)")
    _label(returns, f"Return ({source})", "normalised return (0 random, 100 expert)")
    failures.set_ylim(bottom=0.0)
    failures.legend(frameon=False, loc="upper left")
    if title:
        figure.suptitle(title, fontsize=12)
    figure.supxlabel(_footer(seeds_by_method, command), fontsize=7, color=GREY)
    return save(figure, Path(path))


@own_defaults()
def diagnosis_figure(
    path: Path, reports: Mapping[str, Row], max_risk: float, title: str, command: str
) -> Path:
    """Draw a diagnosis: AUROC, recall against trigger rate, reliability, decoder error.

    Args:
        path: the picture to write.
        reports: by pair of policy and model, from `studies.diagnose`.
        max_risk: eps_safe in use, marked on each curve.
        title, command: for the heading and the footer.
    """
    figure = new_figure(11.0, 7.6)
    (foresight, gate), (reliability, decoder) = figure.subplots(2, 2)
    for index, (name, report) in enumerate(reports.items()):
        look = line_look(index)
        auroc, rows = report["foresight"]["auroc"], report["thresholds"]
        foresight.plot(range(1, len(auroc) + 1), auroc, **look, marker="o", label=name)
        gate.plot([r["trigger_rate"] for r in rows], [r["recall"] for r in rows], **look)
        chosen = report["gate"]
        gate.plot(chosen["trigger_rate"], chosen["recall"], "o", color=look["color"])
        bins = report["reliability"]
        reliability.plot(bins["predicted"], bins["realised"], **look, marker="o")
        for part, marker in (("hand", None), ("object", "s")):
            error = report["decoder_m"][part]
            decoder.plot(range(len(error)), np.multiply(error, 1e3), **look, marker=marker)
    reliability.plot([1e-6, 10], [1e-6, 10], color=GREY, linewidth=0.8)
    dress(foresight, "Failure i steps ahead, imagined", "imagined step i", "AUROC")
    dress(gate, f"Gate (dots: eps_safe = {max_risk:.2g})", "share of steps", "onsets foreseen")
    dress(reliability, "risk, bins of equal size", "predicted", "realised")
    dress(decoder, "Decoded position (squares: object)", "imagined step i", "RMS error, mm")
    gate.set_xscale("symlog", linthresh=1e-3)
    reliability.set_xscale("symlog", linthresh=1e-4)
    reliability.set_yscale("symlog", linthresh=1e-4)
    foresight.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(command, fontsize=7, color=GREY)
    return save(figure, path)


@own_defaults()
def horizon_figure(path: Path, report: Row) -> Path:
    """Draw a horizon study: five panels against H, and recall by lead time.

    Args:
        path: the picture to write.
        report: of `studies.horizon`. Colours are trigger rates (by lead time: horizons), line
            styles gamma_risk. Grey: H beyond the failure head's training.
    """
    figure = new_figure(13.0, 7.6)
    panels = figure.subplots(2, 3).ravel()
    draws = (
        ("acting", "reduction_percent", "Failure episodes behind the gate", "fewer, % of ungated"),
        ("acting", "return", "Return behind the gate", "normalised return"),
        ("acting", "trigger_rate", "Alarms behind the gate", "share of calm steps"),
        ("watched", "recall", "Foreseen without a gate", "recall of failure onsets"),
        ("watched", "lead", "Earliest alarm without a gate", "median lead, steps"),
    )
    for axis, (part, name, title, ylabel) in zip(panels, draws, strict=False):
        _draw_by_horizon(axis, report, part, name)
        dress(axis, title, "horizon H, imagined steps", ylabel)
        beyond = [r["horizon"] for r in report["rows"] if r["beyond_training"]]
        if beyond:
            first = report["train_horizon"] - 0.5
            axis.axvspan(first, max(beyond) + 0.5, color="#eeeeee", zorder=0)
    base = report["ungated"]["return"]
    if base is not None:
        panels[1].axhline(base, color=GREY, linewidth=0.8, label="ungated")
    gates = panels[0].legend(frameon=False, fontsize=7)
    formulas = [_draw_by_lead(panels[5], report), *gates.get_texts()]
    for axis in panels[3:]:
        axis.set_ylim(bottom=0.0)
    ungated = report["ungated"]
    figure.suptitle(
        f"{report['task']}, seed {report['seed']}: horizon of the risk, frozen policy of step "
        f"{report['policy_step']:,}; without a gate {ungated['failure_episodes']} failure episodes "
        f"of {ungated['episodes']:,}",
        fontsize=12,
    )
    beyond = f"grey: H > {report['train_horizon'] - 1}, where the failure head extrapolates"
    intervals = "bars: 95 %, of failures by their counts, of the rest by resampling environments"
    figure.supxlabel(f"{beyond}; {intervals}\n{report['command']}", fontsize=7, color=GREY)
    return save(figure, path, formulas)


def _draw_by_horizon(axis: Any, report: Row, part: str, name: str) -> None:
    """One line for each trigger rate and gamma_risk, with its intervals if it has any."""
    rows = report["rows"]
    rates, gammas = (list(dict.fromkeys(r[k] for r in rows)) for k in ("target_rate", "gamma_risk"))
    for index, (rate, gamma) in enumerate((r, g) for r in rates for g in gammas):
        line = [r for r in rows if (r["target_rate"], r["gamma_risk"]) == (rate, gamma)]
        line = [r for r in line if r[part][name] is not None]
        shift = 0.08 * (index - (len(rates) * len(gammas) - 1) / 2)
        x, y = [r["horizon"] + shift for r in line], [r[part][name] for r in line]
        color, style = PALETTE[rates.index(rate) % 4], STYLES[gammas.index(gamma) % 4]
        label = rf"{100 * rate:g} % of calm steps, $\gamma_{{risk}}$ {gamma:g}"
        axis.plot(x, y, style, color=color, marker="o", markersize=3, label=label)
        limits = np.array(
            [r[part].get(f"{name}_interval", (v, v)) for r, v in zip(line, y, strict=True)], float
        )
        error = np.maximum(np.abs(limits - np.array(y)[:, None]).T, 0.0) if line else None
        if line and error.any():
            axis.errorbar(x, y, error, fmt="none", ecolor=color, alpha=0.4, linewidth=0.8)


def _draw_by_lead(axis: Any, report: Row) -> Any:
    """Recall against lead time, one line per horizon, at the middle rate and last gamma_risk.

    Returns the title, which has a formula.
    """
    rows = report["rows"]
    rates, gammas = (list(dict.fromkeys(r[k] for r in rows)) for k in ("target_rate", "gamma_risk"))
    rate, gamma = rates[len(rates) // 2], gammas[-1]
    line = [r for r in rows if (r["target_rate"], r["gamma_risk"]) == (rate, gamma)]
    for i, row in enumerate(line):
        recall = [np.nan if r is None else r for r in row["watched"]["recall_by_lead"]]
        shade = 0.85 * (1 - i / max(len(line) - 1, 1))
        style = ":" if row["beyond_training"] else "-"
        axis.plot(range(1, len(recall) + 1), recall, style, color=str(shade), label=row["horizon"])
    title = rf"Alarm at least so early: {100 * rate:g} %, $\gamma_{{risk}}$ {gamma:g}"
    axis.legend(frameon=False, fontsize=7, title="H", ncols=2)
    return dress(axis, title, "lead time, steps", "share of failure onsets")


def _by_seed(rows: Sequence[Row]) -> list[list[Row]]:
    """Split rows by their `seed`, in order of appearance."""
    seeds: dict[Any, list[Row]] = {}
    for row in rows:
        seeds.setdefault(row.get("seed"), []).append(row)
    return list(seeds.values())


def _smooth(series: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Average each value with those up to `count` - 1 before it."""
    steps, values = series
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - count, 0)
    return steps, (sums[ends] - sums[starts]) / (ends - starts)


def _label(axis: Any, title: str, ylabel: str) -> None:
    dress(axis, title, "online environment steps", ylabel)
    axis.set_xlim(left=0.0)
    axis.xaxis.set_major_formatter(thousands)


def _footer(seeds_by_method: Mapping[str, Sequence[Any]], command: str) -> str:
    counts = {len(seeds) for seeds in seeds_by_method.values()}
    if len(counts) == 1:
        number = counts.pop()
        text = f"{number} seed" if number == 1 else f"{number} seeds: thin lines; mean: thick"
    else:
        text = "seeds: " + ", ".join(f"{name} {len(s)}" for name, s in seeds_by_method.items())
    return f"{text}\n{command}" if command else text
