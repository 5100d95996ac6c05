"""Scores of failure prediction: AUROC, average precision and calibration error."""

import chex
import numpy as np


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a failing row outranks a safe one. Ties count half; NaN if a class is missing."""
    score, label = np.asarray(score), np.asarray(label, bool)
    chex.assert_rank(score, 1)
    chex.assert_equal_shape([score, label])
    positives, negatives = int(label.sum()), int((~label).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """Mean precision at each positive, with one threshold for each distinct score."""
    score, label = np.asarray(score), np.asarray(label, bool)
    chex.assert_rank(score, 1)
    chex.assert_equal_shape([score, label])
    if not label.any():
        return float("nan")
    _, rank = np.unique(-score, return_inverse=True)
    positives = np.bincount(rank, label)
    precision = np.cumsum(positives) / np.cumsum(np.bincount(rank))
    return float((precision * positives).sum() / positives.sum())


def calibration_error(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: mean of |mean probability - rate| over bins, weighted by size.

    NaN without rows.
    """
    chex.assert_rank(probability, 1)
    chex.assert_equal_shape([probability, label])
    which = np.clip((probability * bins).astype(int), 0, bins - 1)
    size = np.bincount(which, minlength=bins)
    gap = np.bincount(which, probability, bins) - np.bincount(which, label.astype(float), bins)
    return float(np.abs(gap).sum() / size.sum()) if len(label) else float("nan")


def failure_report(
    probability: np.ndarray, failure: np.ndarray, fresh: np.ndarray
) -> dict[str, float]:
    """Scores of the failure head at each horizon step, on held-out windows.

    Args:
        probability: p_i along logged actions [L, M].
        failure: labels [L, M] bool.
        fresh: [M] bool, the window does not begin at a failing step.

    Returns:
        auroc_i, auprc_i, ece_i over all windows, and onset_auroc_i over the fresh ones, which is
        harder and more useful.
    """
    chex.assert_rank([probability, fresh], [2, 1])
    chex.assert_equal_shape([probability, failure])
    chex.assert_axis_dimension(failure, 1, len(fresh))
    report = {}
    for i in range(len(failure)):
        report[f"auroc_{i}"] = auroc(probability[i], failure[i])
        report[f"auprc_{i}"] = average_precision(probability[i], failure[i])
        report[f"ece_{i}"] = calibration_error(probability[i], failure[i])
        if i > 0:
            report[f"onset_auroc_{i}"] = auroc(probability[i][fresh], failure[i][fresh])
    return report
