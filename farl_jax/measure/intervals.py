"""Confidence intervals of shares, counts and means."""

from collections.abc import Sequence

import chex
import numpy as np


def wilson_interval(events: float, trials: float, z: float = 1.96) -> tuple[float, float]:
    """95 % limits of a share of independent trials (Wilson 1927); (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    share, shrink = events / trials, 1.0 + z**2 / trials
    middle = (share + z**2 / (2 * trials)) / shrink
    half = z / shrink * np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return float(max(middle - half, 0.0)), float(min(middle + half, 1.0))


def reduction(failures: float, baseline: float) -> tuple[float, float, float]:
    """(low, estimate, high) of 100 (1 - rate / baseline rate), from counts over equal env steps.

    95 %: given their sum, one of two Poisson counts is binomial. NaN without a baseline failure.
    """
    if baseline == 0:
        return (float("nan"),) * 3
    low, high = wilson_interval(failures, failures + baseline)
    fewer = lambda share: 100.0 * (1.0 - share / (1.0 - share))
    return fewer(high), fewer(failures / (failures + baseline)), fewer(low)


def bootstrap_interval(values: Sequence[float], draws: int = 10_000) -> tuple[float, float]:
    """95 % limits of the mean over seeds. With one seed both are its value."""
    values = np.asarray(values, float)
    chex.assert_rank(values, 1)
    rows = np.random.default_rng(0).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[rows].mean(1), [0.025, 0.975])
    return float(low), float(high)
