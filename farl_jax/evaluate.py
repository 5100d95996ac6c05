"""Measuring: whole first episodes on fixed keys, and how well failures are foreseen."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.returns import normalized_return
from farl_jax.rollout import unroll
from farl_jax.types import BatchedEnv, Controller, Transition


def first_episodes(steps: Transition) -> jax.Array:
    """Mask [T, N] of the steps that belong to each environment's first episode."""
    ended_before = jnp.cumsum(steps.done, axis=0) - steps.done
    return ended_before == 0


def episode_summary(steps: Transition, env: BatchedEnv) -> dict[str, jax.Array]:
    """Means over first episodes of a rollout [T, N] from reset, T >= the episode limit.

    Returns success, failure_episodes (share), failing_steps, recovered_share (of steps), length,
    return (raw) and normalized_return with its standard error.
    """
    mask = first_episodes(steps)
    total = lambda x: jnp.sum(jnp.where(mask, x, 0), axis=0)
    length = total(jnp.ones_like(steps.reward))
    failing = total(steps.failure)
    scores = normalized_return(total(steps.reward), env.random_return, env.expert_return)
    return {
        "success": (total(steps.success) > 0).mean(),
        "failure_episodes": (failing > 0).mean(),
        "failing_steps": failing.mean(),
        "recovered_share": total(steps.decision.intervened).sum() / length.sum(),
        "length": length.mean(),
        "return": total(steps.reward).mean(),
        "normalized_return": scores.mean(),
        "normalized_return_se": scores.std(ddof=1) / jnp.sqrt(scores.shape[0]),
        "diverged": total(steps.diverged).sum().astype(jnp.float32),
    }


def make_evaluate(
    env: BatchedEnv, controller_of: Callable[..., tuple[Any, Controller]]
) -> Callable[..., dict[str, jax.Array]]:
    """Build a jitted `evaluate(key, *args)` of `controller_of(*args)` -> (memory, controller).

    One episode each. The key decides the starts and nothing else of a deterministic controller;
    use keys that training and tuning never see.
    """

    def evaluate(key: jax.Array, *args: Any) -> dict[str, jax.Array]:
        key_reset, key_roll = jax.random.split(key)
        memory, controller = controller_of(*args)
        state = env.reset(key_reset)
        *_, steps, _ = unroll(env, controller, memory, state, key_roll, env.episode_limit)
        return episode_summary(steps, env)

    return jax.jit(evaluate, compiler_options=dict(env.compiler_options))


def auroc(score: np.ndarray, label: np.ndarray) -> float:
    """Chance that a failing row outranks a safe one, ties half; NaN if one-sided."""
    label = np.asarray(label, bool)
    positives, negatives = int(label.sum()), int((~label).sum())
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def average_precision(score: np.ndarray, label: np.ndarray) -> float:
    """Area under precision-recall: mean precision at each positive, one threshold a score."""
    label = np.asarray(label, bool)
    if not label.any():
        return float("nan")
    _, rank = np.unique(-np.asarray(score), return_inverse=True)
    positives = np.bincount(rank, label)
    precision = np.cumsum(positives) / np.cumsum(np.bincount(rank))
    return float((precision * positives).sum() / positives.sum())


def calibration_error(probability: np.ndarray, label: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |mean probability - rate| over bins, weighted by size.

    NaN without any row.
    """
    which = np.clip((probability * bins).astype(int), 0, bins - 1)
    size = np.bincount(which, minlength=bins)
    gap = np.bincount(which, probability, bins) - np.bincount(which, label.astype(float), bins)
    return float(np.abs(gap).sum() / size.sum()) if len(label) else float("nan")


def failure_report(
    probability: np.ndarray, failure: np.ndarray, fresh: np.ndarray
) -> dict[str, float]:
    """How well the failure head foresees, per horizon step, on held-out windows.

    Args:
        probability: p_i along logged actions [L, M].
        failure: what it was to foretell, [L, M] bool.
        fresh: [M] bool, the window does not begin at a failing step.

    Returns:
        auroc_i, auprc_i, ece_i over all windows, and onset_auroc_i over the fresh ones, the harder
        and more useful question.
    """
    report = {}
    for i in range(len(failure)):
        report[f"auroc_{i}"] = auroc(probability[i], failure[i])
        report[f"auprc_{i}"] = average_precision(probability[i], failure[i])
        report[f"ece_{i}"] = calibration_error(probability[i], failure[i])
        if i > 0:
            report[f"onset_auroc_{i}"] = auroc(probability[i][fresh], failure[i][fresh])
    return report
