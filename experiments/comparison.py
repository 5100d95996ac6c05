"""Arithmetic over seeds: summaries, paired comparisons, ranks, the Pareto front.

A 95 % interval resamples seeds 10,000 times. One seed has none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from experiments.errors import UserError
from farl_jax.measure.intervals import bootstrap_interval
from farl_jax.methods import BASELINE, MAIN, OURS, RIVALS

Row = Mapping[str, Any]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Difference:
    """Final return of `ours` minus that of `other`, paired by seed."""

    mean: float
    interval: Interval | None
    """95 % over seeds, or with one seed over its evaluation episodes. None without either."""
    seeds: tuple[int, ...]

    @property
    def verdict(self) -> str:
        """Rank of the other method: `below`, `above` or `undecided`."""
        if self.interval is None:
            return "undecided"
        low, high = self.interval
        return "below" if low > 0 else "above" if high < 0 else "undecided"


def summary(groups: Mapping[str, Sequence[Row]], key: str) -> dict[str, Any]:
    """Headline numbers of one group of a task: means over seeds, and against the baseline.

    Rates and shares are ratios of totals over seeds, None if the total is 0. Intervals are None
    with one seed.
    """
    rows = groups[key]
    values = lambda name: np.array([row[name] for row in rows], float)
    share = lambda part, whole: (
        float(values(part).sum() / values(whole).sum()) if values(whole).any() else None
    )
    line = {
        "seeds": [row["seed"] for row in rows],
        "online_steps": rows[0]["online_steps"],
        "episodes": float(values("episodes").mean()),
        "failure_rate": share("failure_episodes", "episodes"),
        "offline_failure_episodes": _mean_known([r.get("offline_failure_episodes") for r in rows]),
        "recovered_share": share("recovered_steps", "online_steps"),
    }
    for name in ("failure_episodes", "initial_return", "final_return", "final_success"):
        line[name] = float(values(name).mean())
        line[f"{name}_interval"] = interval(values(name))
    return line | against_baseline(groups, key)


def _mean_known(values: Sequence[float | None]) -> float | None:
    """The mean; None if a value is missing, as in rows of older versions."""
    return None if None in values else float(np.mean(values))


def interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean over seeds."""
    return bootstrap_interval(values) if len(values) > 1 else None


def baseline_of(groups: Mapping[str, Sequence[Row]], key: str) -> str | None:
    """The baseline group to compare `key` with: of the same variant, else the plain one."""
    method, _, variant = key.partition(" ")
    choices = (f"{BASELINE} {variant}", BASELINE) if method != BASELINE else ()
    return next((choice.strip() for choice in choices if choice.strip() in groups), None)


def difference(ours: Sequence[Row], other: Sequence[Row]) -> Difference | None:
    """Difference of final returns on common seeds; None without one.

    With one seed the interval is 1.96 standard errors over its evaluation episodes.
    """
    pairs = _pairs(ours, other)
    if not pairs:
        return None
    differences = [a["final_return"] - b["final_return"] for a, b in pairs]
    mean, limits = float(np.mean(differences)), interval(differences)
    errors = [row.get("final_return_se") for row in pairs[0]]
    if limits is None and all(isinstance(error, int | float) for error in errors):
        half = 1.96 * float(np.hypot(*errors))
        limits = (mean - half, mean + half)
    return Difference(mean, limits, tuple(a["seed"] for a, _ in pairs))


@dataclass(frozen=True)
class RateRatio:
    """Failure episodes per episode, ours over the baseline's, a geometric mean over seeds."""

    ratio: float
    interval: Interval | None
    """95 %, by Student's t over seeds. None with one seed."""

    @property
    def fewer(self) -> tuple[float, Interval | None]:
        """Reduction per episode in percent, and its interval."""
        share = lambda ratio: 100.0 * (1.0 - ratio)
        limits = self.interval and (share(self.interval[1]), share(self.interval[0]))
        return share(self.ratio), limits


def log_rate_ratios(base: Sequence[Row], ours: Sequence[Row]) -> np.ndarray:
    """log((f' + 1/2) / (n' + 1)) - log((f + 1/2) / (n + 1)) of each common seed, [S].

    f of n episodes fail, f' of n' ours. Counts hide that a method has fewer episodes; rates do not.
    The halves keep the logarithm finite where nothing failed.
    """
    rate = lambda row: (row["failure_episodes"] + 0.5) / (row["episodes"] + 1.0)
    return np.array([np.log(rate(own) / rate(other)) for own, other in _pairs(ours, base)])


def rate_ratio(logs: Sequence[np.ndarray]) -> RateRatio | None:
    """The geometric mean over tasks of their seeds' rate ratios; None without a common seed.

    `logs` has the `log_rate_ratios` of each task. Seeds are the units of sampling, because the
    episodes of one run are not independent. Degrees of freedom are Welch and Satterthwaite's.
    """
    if not logs or any(len(seeds) == 0 for seeds in logs):
        return None
    mean = float(np.mean([seeds.mean() for seeds in logs]))
    if any(len(seeds) < 2 for seeds in logs):
        return RateRatio(float(np.exp(mean)), None)
    parts = np.array([seeds.var(ddof=1) / len(seeds) for seeds in logs])
    free = np.array([len(seeds) - 1 for seeds in logs])
    total = parts.sum()
    degrees = total**2 / np.sum(parts**2 / free) if total > 0 else float(free.sum())
    half = stats.t.ppf(0.975, degrees) * np.sqrt(total) / len(logs)
    low, high = np.exp([mean - half, mean + half])
    return RateRatio(float(np.exp(mean)), (float(low), float(high)))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (failures, return) that no other dominates, ordered by failures."""
    front: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[i][1] > points[front[-1]][1]:
            front.append(i)
    return front


def causes(rows: Sequence[Row]) -> dict[str, int]:
    """Failure episodes of all seeds by recent state of the gate; empty without a gate."""
    total: dict[str, int] = {}
    for row in rows:
        for name, count in (row.get("causes") or {}).items():
            total[name] = total.get(name, 0) + int(count)
    return total


def ranks(groups: Mapping[str, Sequence[Row]], paper: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rank each rival of the paper's ablation against FARL on final return.

    Args:
        groups: rows of one task by key.
        paper: (initial, final) return by method; empty if the paper lacks the task.
    """
    lines = []
    for rival in RIVALS:
        found = difference(groups[OURS], groups[rival]) if {OURS, rival} <= set(groups) else None
        known = OURS in paper and rival in paper
        theirs = paper[OURS][1] - paper[rival][1] if known else None
        lines.append({"rival": rival, "ours": found, "paper": theirs, "text": _say(found, theirs)})
    return lines


def against_baseline(groups: Mapping[str, Sequence[Row]], key: str) -> dict[str, Any]:
    """Reduction of failure episodes in percent and difference of return, with intervals."""
    names = ("reduction", "reduction_interval", "return_difference", "return_difference_interval")
    base = baseline_of(groups, key)
    if base is None or not (pairs := _pairs(groups[key], groups[base])):
        return dict.fromkeys(names) | {"paired_seeds": []}
    rows, baseline = zip(*pairs, strict=True)
    report = paired(list(baseline), list(rows))
    limits = report["reduction_interval"] if len(pairs) > 1 else None
    return {
        "reduction": report["reduction_percent"],
        "reduction_interval": limits and tuple(limits),
        "return_difference": report["return_difference"],
        "return_difference_interval": interval(report["return_difference_per_seed"]),
        "paired_seeds": [row["seed"] for row in rows],
    }


def _pairs(ours: Sequence[Row], other: Sequence[Row]) -> list[tuple[Row, Row]]:
    by_seed = {row["seed"]: row for row in other}
    return [(row, by_seed[row["seed"]]) for row in ours if row["seed"] in by_seed]


def _say(found: Difference | None, theirs: float | None) -> str:
    if found is None:
        return "not measured in these runs"
    said = {
        "below": "ranks below FARL",
        "above": "ranks above FARL here",
        "undecided": "undecided: the interval contains 0"
        if found.interval
        else "undecided: one seed, no interval",
    }[found.verdict]
    if theirs is None:
        return said
    agrees = {"below": theirs > 0, "above": theirs < 0, "undecided": False}[found.verdict]
    return f"{said}, {'as in' if agrees else 'unlike'} the paper" if found.interval else said


def paired(
    base: list[dict[str, Any]], ours: list[dict[str, Any]], count: str = "failure_episodes"
) -> dict[str, Any]:
    """Reduction of a count and difference of final return, paired by seed.

    The reduction compares totals over seeds, and its 95 % interval resamples seeds 10,000 times.
    Both are None if the baseline has none to reduce.
    """
    by_seed = {row["seed"]: row for row in base}
    pairs = [(by_seed[row["seed"]], row) for row in ours if row["seed"] in by_seed]
    if not pairs:
        raise UserError("the two methods share no seed; run both with the same --seed and --seeds")
    failures = np.array([[b[count], o[count]] for b, o in pairs], float)
    returns = np.array([o["final_return"] - b["final_return"] for b, o in pairs])
    reduction = lambda f: 100.0 * (1.0 - f[..., 1].sum(-1) / np.maximum(f[..., 0].sum(-1), 1.0))
    failed = failures[:, 0].any()  # otherwise there is no share
    rows = np.random.default_rng(0).integers(0, len(pairs), (10_000, len(pairs)))
    limits = np.quantile(reduction(failures[rows]), [0.025, 0.975])
    return {
        "reduction_percent": float(reduction(failures)) if failed else None,
        "reduction_interval": [float(x) for x in limits] if failed else None,
        "return_difference": float(returns.mean()),
        "return_difference_per_seed": [float(x) for x in returns],
    }


DRAWS = 10_000


def mean_reduction(
    by_task: dict[str, dict[str, list[Row]]], count: str = "failure_episodes"
) -> tuple[float, float, float] | None:
    """(low, mean, high): reduction of a count by FARL in percent, averaged over tasks.

    Tasks where the baseline has none do not count. None if no task counts.

    A task's reduction compares totals over its seeds. The 95 % interval is a stratified bootstrap:
    each draw resamples every task's seeds, both methods of a seed together.
    """
    rng, parts = np.random.default_rng(0), []
    for methods in by_task.values():
        counts = np.array([[r[count] for r in methods[m]] for m in MAIN], float)
        index = rng.integers(0, counts.shape[1], (DRAWS, counts.shape[1]))
        index[0] = np.arange(counts.shape[1])  # the first draw is the sample itself
        base, ours = counts[:, index].sum(-1)
        if counts[0].any():
            parts.append(100.0 * (1.0 - ours / np.maximum(base, 1.0)))
    if not parts:
        return None
    means = np.mean(parts, axis=0)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(means[0]), float(high)
