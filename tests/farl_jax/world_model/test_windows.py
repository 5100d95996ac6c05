"""Windows of episodes that a failure ends: it must be seen at every step of a window."""

import numpy as np

from farl_jax.config import WorldModelConfig
from farl_jax.world_model.windows import absorbed, to_windows
from tests.farl_jax.data.test_dataset import make


def ended(lengths):
    """Episodes without a failure but at their last step, which ends the first one only."""
    data = make(lengths)
    last = np.append(data["episode"][1:] != data["episode"][:-1], True)
    data |= {"failure": last, "terminated": last & (data["episode"] == 0)}
    return data | {"truncated": last & ~data["terminated"], "success": np.zeros_like(last)}


def test_an_ended_episode_stays_failed_and_others_are_as_they_are():
    data = ended([3, 4])
    longer = absorbed(data, 4)
    np.testing.assert_array_equal(longer["episode"], [0] * 6 + [1] * 4)
    np.testing.assert_array_equal(longer["failure"], [0, 0, 1, 1, 1, 1, 0, 0, 0, 1])
    np.testing.assert_array_equal(longer["obs"][3:6], [data["next_obs"][2]] * 3)
    np.testing.assert_array_equal(longer["reward"][2:6], [data["reward"][2], 0, 0, 0])
    for name, field in data.items():
        np.testing.assert_array_equal(np.delete(longer[name], [3, 4, 5], axis=0), field)
    for other in ({"terminated": np.zeros(7, bool)}, {"success": np.ones(7, bool)}):
        safe = data | other
        assert absorbed(safe, 4) is safe


def test_a_failure_that_ends_an_episode_is_seen_at_every_step_of_a_window():
    config = WorldModelConfig(train_horizon=4)
    windows = to_windows(ended([6, 6]), config)
    first = np.asarray(windows.failing)[: int(windows.num_failing), None] + np.arange(4)
    onsets = np.asarray(windows.failure)[first].argmax(axis=1)
    assert {0, 1, 2, 3} <= set(onsets.tolist())
