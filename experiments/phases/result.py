"""The row of a run's online phase in `result.json`."""

from typing import Any

from experiments.known import known
from experiments.phases.offline import practice_of
from experiments.process.machine import describe_environment
from experiments.runs.run import Run
from farl_jax.methods import METHODS
from farl_jax.online import loop
from farl_jax.online.counters import summarize
from farl_jax.safety.gate import ALARMS, Gate
from farl_jax.updates.constrained import ConstrainedLearners


def result_row(
    run: Run, method: str, state: loop.OnlineState, gate: Gate, scores: tuple[Any, Any, Any]
) -> dict[str, Any]:
    """One run's row. `scores` are of the first policy, the last, and the last without a gate."""
    totals, gated = summarize(state.counters, None, []), METHODS[method].gated
    first, last, bare = scores
    names = ("episodes", "failure_episodes", "failing_steps", "recovered_steps", "successes")
    return {
        "task": run.settings.task,
        "method": method,
        "seed": run.settings.seed,
        "preset": run.settings.preset,
        "online_steps": int(state.env_steps),
        **{name: int(totals[name]) for name in (*names, "diverged")},
        "causes": {name: int(totals[name]) for name in ALARMS} if gated else None,
        "control_episodes": int(totals["control_episodes"]) if gated else None,
        "control_failure_episodes": int(totals["control_failure_episodes"]) if gated else None,
        "initial_return": first["normalized_return"],
        "final_return": last["normalized_return"],
        "final_return_se": known(last["normalized_return_se"]),
        "initial_success": first["success"],
        "final_success": last["success"],
        "final_failure_rate": last["failure_episodes"],
        "final_return_without_gate": bare["normalized_return"],
        "final_success_without_gate": bare["success"],
        **_offline(run, method),
        "max_risk": float(gate.max_risk) if gated else None,
        **_constraint(run, state),
        "backend": run.env(1).backend,
        "git": describe_environment()["git"],  # env.json may be of an earlier method
    }


def _offline(run: Run, method: str) -> dict[str, int | None]:
    """Counts of the offline phase's environment steps; None if an older version made it."""
    names = ("steps", "episodes", "failure_episodes")
    practice = practice_of(run, METHODS[method])
    return {f"offline_{name}": practice and getattr(practice, name) for name in names}


def _constraint(run: Run, state: loop.OnlineState) -> dict[str, float]:
    """Further fields of a constrained method: its limit, and J_C at the end."""
    if not isinstance(state.learners, ConstrainedLearners):
        return {}
    limit = run.settings.config.constraint.limit
    return {
        "cost_limit": limit,
        "cost_rate": float(state.learners.costs.rate.estimate(limit)),
    }
