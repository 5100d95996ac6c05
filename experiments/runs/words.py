"""Stages and progress of a run in words, for the terminal. The numbers are in metrics.jsonl."""

from collections.abc import Callable, Mapping

from experiments.known import shown
from farl_jax.config import FarlConfig, OnlineConfig

Metrics = Mapping[str, float]

_STAGES: dict[str, Callable[[Metrics], str]] = {
    "clone": lambda m: f"task policy cloned (held-out NLL {shown(m['nll'], '.2f')})",
    "own_failures": lambda m: (
        f"it acted for {m['episodes']:,.0f} episodes and failed in {m['failure_episodes']:,.0f}"
    ),
    "transition_ensemble": lambda m: (
        f"models for off-policy evaluation fitted (error {shown(m['mse'], '.2g')})"
    ),
    "task_policy": lambda m: f"task policy improved: {m['accepted']:.0f} rounds accepted",
    "recovery_policy": lambda m: f"recovery policy improved: {m['accepted']:.0f} rounds accepted",
    "failure_head": lambda m: _foresight(m),
    "calibration": lambda m: (
        f"calibration: eps_safe {m['max_risk']:.2g} would foresee {shown(m['recall'], '.0%')} of "
        f"failures and act on {shown(m['trigger_rate'], '.1%')} of calm steps"
    ),
}
_TOTALS: dict[str, Callable[[FarlConfig], int]] = {
    "world_model": lambda config: config.world_model.steps,
    "risk_critic": lambda config: config.risk_critic.steps,
}
"""Stages that report several times -> their number of updates."""


def stage_words(stage: str, metrics: Metrics, config: FarlConfig, seconds: float) -> str:
    """One line about a stage of learning.

    Args:
        stage: its name.
        metrics: what it reports. A long stage has `step`, the updates done.
        config: the run's numbers.
        seconds: that one update takes, 0 if unknown.
    """
    if stage in _TOTALS:
        total, done = _TOTALS[stage](config), int(metrics["step"])
        left = f", {time_left(seconds * (total - done))}" if seconds and done < total else ""
        return f"{stage.replace('_', ' ')}: {done:,} of {total:,} updates{left}"
    if stage in _STAGES:
        return _STAGES[stage](metrics)
    return f"{stage}: {numbers(metrics)}"


def numbers(metrics: Metrics) -> str:
    """All metrics by name."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def counts_words(kind: str, counts: Metrics) -> str:
    """One line about demonstrations of one kind."""
    return (
        f"{kind}: {counts['episodes']:,} episodes, {counts['successes']:,} succeed, "
        f"{counts['failure_episodes']:,} fail ({counts['steps']:,} steps)"
    )


def budget_words(online: OnlineConfig) -> str:
    """How long an online phase lasts."""
    if online.episodes is None:
        return f"{online.env_steps:,} steps"
    return f"{online.episodes:,} episodes, at most {online.env_steps:,} steps"


def time_left(seconds: float) -> str:
    """Seconds that are left, in words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s left"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min left"
    return f"{seconds / 3600:.1f} h left"


def _foresight(metrics: Metrics) -> str:
    """AUROC of the first and last imagined step."""
    steps = [name for name in metrics if name.startswith("auroc_")]
    first, last = (shown(metrics[name], ".2f") for name in (steps[0], steps[-1]))
    return (
        f"failures foreseen with AUROC {first} at imagined step 1, {last} at step {len(steps)} "
        "(1 is perfect, 0.5 chance)"
    )
