"""The figures: failures and return against online steps; a diagnosis. Drawn without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.figures.drawing import new_figure, own_defaults, save

# Okabe and Ito's palette: told apart with any colour vision, and in grey by line style.
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_STYLES = ("-", "--", "-.", ":")
_GREY = "#5c5c5c"

Row = Mapping[str, Any]


def _look(index: int) -> dict[str, str]:
    """Colour and line style of the n-th line: no two alike."""
    style = _STYLES[(index + index // len(_STYLES)) % len(_STYLES)]
    return {"color": _COLORS[index % len(_COLORS)], "linestyle": style}


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
        path: the picture to write; its suffix chooses the format.
        rows_by_method: by method's name, `online` rows of metrics.jsonl: `step`, and any of
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
        look = _look(index)
        counts = [from_zero(series(rows, "failure_episodes")) for rows in seeds]
        scores = [_smooth(series(rows, score), smooth) for rows in seeds]
        if not any(len(steps) for steps, _ in (*counts, *scores)):
            raise ValueError(f"{method}: no row has failure_episodes or {score}")
        draw_lines(failures, counts, look, method)
        draw_lines(returns, scores, look, method)
    _label(failures, "Failures during fine-tuning", "failure episodes (cumulative)")
    _label(returns, f"Return ({source})", "normalised return (0 random, 100 expert)")
    failures.set_ylim(bottom=0.0)
    failures.legend(frameon=False, loc="upper left")
    if title:
        figure.suptitle(title, fontsize=12)
    figure.supxlabel(_footer(seeds_by_method, command), fontsize=7, color=_GREY)
    return save(figure, Path(path))


@own_defaults()
def diagnosis_figure(
    path: Path, reports: Mapping[str, Row], max_risk: float, title: str, command: str
) -> Path:
    """Draw what `farl diagnose` found: foresight, recall and precision, reliability, decoder error.

    Args:
        path: the picture to write.
        reports: by pair of policy and model, the rows of `run_diagnose`.
        max_risk: eps_safe in use, a mark on each curve.
        title, command: above the panels, and in the footer.
    """
    figure = new_figure(11.0, 7.6)
    (foresight, gate), (reliability, decoder) = figure.subplots(2, 2)
    for index, (name, report) in enumerate(reports.items()):
        look = _look(index)
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
    reliability.plot([1e-6, 10], [1e-6, 10], color=_GREY, linewidth=0.8)
    dress(foresight, "Failure i steps ahead, imagined", "imagined step i", "AUROC")
    dress(gate, f"Gate (dots: eps_safe = {max_risk:.2g})", "share of steps", "onsets foreseen")
    dress(reliability, "C_H, bins of equal size", "predicted", "realised")
    dress(decoder, "Decoded position (squares: object)", "imagined step i", "RMS error, mm")
    gate.set_xscale("symlog", linthresh=1e-3)
    reliability.set_xscale("symlog", linthresh=1e-4)
    reliability.set_yscale("symlog", linthresh=1e-4)
    foresight.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(command, fontsize=7, color=_GREY)
    return save(figure, path)


@own_defaults()
def horizon_figure(path: Path, report: Row) -> Path:
    """Draw what `farl sweep horizon` found, all against H but the recall by lead time.

    Args:
        path: the picture to write.
        report: of `run_horizon.study`. Colours are trigger rates (by lead time: horizons), line
            styles gamma_risk. Grey: H that the failure head was not trained for.
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
        panels[1].axhline(base, color=_GREY, linewidth=0.8, label="ungated")
    gates = panels[0].legend(frameon=False, fontsize=7)
    formulas = [_draw_by_lead(panels[5], report), *gates.get_texts()]
    for axis in panels[3:]:
        axis.set_ylim(bottom=0.0)
    ungated = report["ungated"]
    figure.suptitle(
        f"{report['task']}, seed {report['seed']}: horizon of C_H, frozen policy of step "
        f"{report['policy_step']:,}; without a gate {ungated['failure_episodes']} failure episodes "
        f"of {ungated['episodes']:,}",
        fontsize=12,
    )
    beyond = f"grey: H > {report['train_horizon'] - 1}, where the failure head extrapolates"
    intervals = "bars: 95 %, of failures by their counts, of the rest by resampling environments"
    figure.supxlabel(f"{beyond}; {intervals}\n{report['command']}", fontsize=7, color=_GREY)
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
        color, style = _COLORS[rates.index(rate) % 4], _STYLES[gammas.index(gamma) % 4]
        label = rf"{100 * rate:g} % of calm steps, $\gamma_{{risk}}$ {gamma:g}"
        axis.plot(x, y, style, color=color, marker="o", markersize=3, label=label)
        limits = np.array(
            [r[part].get(f"{name}_interval", (v, v)) for r, v in zip(line, y, strict=True)], float
        )
        error = np.maximum(np.abs(limits - np.array(y)[:, None]).T, 0.0) if line else None
        if line and error.any():
            axis.errorbar(x, y, error, fmt="none", ecolor=color, alpha=0.4, linewidth=0.8)


def _draw_by_lead(axis: Any, report: Row) -> Any:
    """Recall against lead time, a line for each horizon, at the middle rate and last gamma_risk.

    Returns the title, which holds a formula.
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


@own_defaults()
def throughput_figure(
    path: Path, rows: Sequence[Row], metaworld: Mapping[Any, float] | None, command: str
) -> Path:
    """Draw env steps per second against batch size, both logarithmic.

    Args:
        path: the picture to write.
        rows: of `bench.measure`; one line for each task and backend.
        metaworld: processes -> env steps per second, a horizontal line each.
        command: for the footer.
    """
    figure = new_figure(7.5, 5.0)
    axis = figure.subplots()
    tasks, backends = (list(dict.fromkeys(r[k] for r in rows)) for k in ("task", "backend"))
    for task in tasks:
        for backend in backends:
            line = [r for r in rows if (r["task"], r["backend"]) == (task, backend)]
            look = {"color": _COLORS[tasks.index(task) % 4], "marker": "o"}
            look["linestyle"] = _STYLES[backends.index(backend) % 4]
            sizes, rates = [r["num_envs"] for r in line], [r["steps_per_second"] for r in line]
            if line:
                axis.plot(sizes, rates, **look, label=f"{task}, {backend}")
    for processes, rate in (metaworld or {}).items():
        axis.axhline(rate, color=_GREY, linewidth=0.8)
        axis.annotate(f"MetaWorld, {processes} process(es)", (sizes[0], rate), fontsize=8)
    dress(axis, "Throughput of a jitted rollout with the policy", "environments", "env steps/s")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.legend(frameon=False, fontsize=8)
    figure.supxlabel(command, fontsize=7, color=_GREY)
    return save(figure, path)


@own_defaults()
def shares_figure(path: Path, rows: Sequence[Row], names: Sequence[str], command: str) -> Path:
    """Draw what share of the time each part takes, one bar for each row, stacked.

    Args:
        path: the picture to write.
        rows: of `bench_train.run`, with `shares` by part.
        names: parts from left to right. What is below 0 is left out.
        command: for the footer.
    """
    figure = new_figure(9.0, 1.8 + 0.45 * len(rows))
    axis = figure.subplots()
    labels = [f"{r['task']}, {r['backend']}, {r['num_envs']} environments" for r in rows]
    left = np.zeros(len(rows))
    for name, color in zip(names, _COLORS, strict=False):
        width = np.array([max(0.0, 100 * row["shares"][name]) for row in rows])
        axis.barh(range(len(rows)), width, left=left, color=color, label=name.replace("_", " "))
        left += width
    for i, row in enumerate(rows):
        axis.annotate(f" {row['steps_per_second']:,.0f}/s", (left[i], i), va="center", fontsize=8)
    axis.set_yticks(range(len(rows)), labels, fontsize=8)
    axis.set_xlim(0.0, 1.15 * left.max())
    axis.invert_yaxis()
    dress(axis, "Where the online loop's time goes", "% of the time of an update", "")
    figure.legend(frameon=False, fontsize=8, loc="outside upper right", ncols=len(names))
    figure.supxlabel(command, fontsize=7, color=_GREY)
    return save(figure, path)


def _by_seed(rows: Sequence[Row]) -> list[list[Row]]:
    """Split rows by their `seed`, in order of appearance."""
    seeds: dict[Any, list[Row]] = {}
    for row in rows:
        seeds.setdefault(row.get("seed"), []).append(row)
    return list(seeds.values())


def series(rows: Sequence[Row], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps [P] and values [P] of the rows where `name` was measured, by step."""
    points = sorted((row["step"], row[name]) for row in rows if row.get(name) is not None)
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.array(steps, float), np.array(values, float)


def from_zero(series: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A count begins at 0 before the first step."""
    steps, values = series
    if not len(steps) or steps[0] <= 0:
        return series
    return np.append(0.0, steps), np.append(0.0, values)


def _smooth(series: tuple[np.ndarray, np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Average each value with those up to `count` - 1 before it."""
    steps, values = series
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - count, 0)
    return steps, (sums[ends] - sums[starts]) / (ends - starts)


def _mean(
    runs: Sequence[tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs, interpolated to the steps of any, over the range that all cover."""
    runs = [run for run in runs if len(run[0])]
    low, high = max(s[0] for s, _ in runs), min(s[-1] for s, _ in runs)
    grid = np.unique(np.concatenate([steps for steps, _ in runs]))
    grid = grid[(grid >= low) & (grid <= high)]
    return grid, np.mean([np.interp(grid, steps, values) for steps, values in runs], axis=0)


def draw_lines(
    axis: Any, runs: Sequence[tuple[np.ndarray, np.ndarray]], look: Mapping[str, Any], label: str
) -> None:
    """Each seed thin, their mean thick where all of them were measured."""
    runs = [run for run in runs if len(run[0])]
    if len(runs) > 1:
        for steps, values in runs:
            axis.plot(steps, values, color=look["color"], linewidth=0.8, alpha=0.4)
    if runs:
        steps, values = _mean(runs)
        marker = "o" if len(steps) < 12 else None
        axis.plot(steps, values, **look, linewidth=2.2, marker=marker, markersize=4, label=label)


def _label(axis: Any, title: str, ylabel: str) -> None:
    dress(axis, title, "online environment steps", ylabel)
    axis.set_xlim(left=0.0)
    axis.xaxis.set_major_formatter(thousands)


def dress(axis: Any, title: str, xlabel: str, ylabel: str) -> Any:
    """Title, labels and a quiet grid; returns the title."""
    axis.set_xlabel(xlabel)
    axis.set_ylabel(ylabel)
    axis.grid(True, color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    return axis.set_title(title, fontsize=11, loc="left")


def thousands(value: float, _: int) -> str:
    """Tick label of a count: 300k, 1M."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def _footer(seeds_by_method: Mapping[str, Sequence[Any]], command: str) -> str:
    counts = {len(seeds) for seeds in seeds_by_method.values()}
    if len(counts) == 1:
        number = counts.pop()
        text = f"{number} seed" if number == 1 else f"{number} seeds: thin lines; mean: thick"
    else:
        text = "seeds: " + ", ".join(f"{name} {len(s)}" for name, s in seeds_by_method.items())
    return f"{text}\n{command}" if command else text
