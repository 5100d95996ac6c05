"""Counts of what learnt policies do in the environment during the offline phase."""

from dataclasses import dataclass

import numpy as np

from farl_jax.data.dataset import Dataset, num_episodes


@dataclass(frozen=True)
class Practice:
    """Environment steps of learnt policies in the offline phase, and failures in them."""

    steps: int = 0
    episodes: int = 0
    failure_episodes: int = 0

    @classmethod
    def of(cls, data: Dataset) -> "Practice":
        """Count a dataset's episodes. One that the rollout cut off counts, too."""
        failing = np.unique(data["episode"][data["failure"]])
        return cls(len(data["episode"]), num_episodes(data), len(failing))

    def __add__(self, other: "Practice") -> "Practice":
        return Practice(
            self.steps + other.steps,
            self.episodes + other.episodes,
            self.failure_episodes + other.failure_episodes,
        )
