"""The commands. Only this package imports both the learner and the simulator."""

from typing import Any


def load_run(path: Any, task: str | None = None) -> Any:
    """A run's folder as an object: `settings`, `rows`, `policy(obs)`, `safe_policy()`.

    See `experiments.policy.trained.TrainedRun`.
    """
    from experiments.policy import trained  # which starts JAX, as commands need not

    return trained.load_run(path, task)
