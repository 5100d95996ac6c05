"""What the offline phase itself does in the environment: it breaks things, too, and is counted."""

from dataclasses import dataclass

import numpy as np

from farl_jax.data.dataset import Dataset, num_episodes


@dataclass(frozen=True)
class Practice:
    """Totals of environment steps that learnt policies took in the offline phase."""

    steps: int = 0
    episodes: int = 0
    failure_episodes: int = 0

    @classmethod
    def of(cls, data: Dataset) -> "Practice":
        """Of a dataset's episodes; one that a rollout cut off counts as one."""
        failing = np.unique(data["episode"][data["failure"]])
        return cls(len(data["episode"]), num_episodes(data), len(failing))

    def __add__(self, other: "Practice") -> "Practice":
        return Practice(
            self.steps + other.steps,
            self.episodes + other.episodes,
            self.failure_episodes + other.failure_episodes,
        )
