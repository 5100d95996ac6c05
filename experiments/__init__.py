"""The commands. Only this package imports both the learner and the simulator.

Nothing is imported here: `farl` must first leave the current folder out (`search_path`).
"""

TYPE_CHECKING = False  # type checkers take it for true
if TYPE_CHECKING:
    from pathlib import Path

    from experiments.policy.trained import TrainedRun


def load_run(path: "Path | str", task: str | None = None) -> "TrainedRun":
    """A run's folder as a `TrainedRun`: `settings`, `rows`, `policy(obs)`, `safe_policy()`.

    See `experiments.policy.trained.TrainedRun`.
    """
    from experiments.policy import trained  # which starts JAX, as commands need not

    return trained.load_run(path, task)
