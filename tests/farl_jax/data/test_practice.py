"""What the offline phase did in the environment, counted by hand."""

import numpy as np

from farl_jax.data.practice import Practice


def test_steps_episodes_and_failures_by_hand():
    data = {
        "episode": np.array([0, 0, 0, 1, 1, 2], np.int32),
        "failure": np.array([0, 1, 1, 0, 0, 1], bool),
    }
    own = Practice.of(data)
    assert own == Practice(steps=6, episodes=3, failure_episodes=2)
    assert own + Practice(4, 1, 1) == Practice(10, 4, 3)
    assert Practice() == Practice(0, 0, 0)
