"""The names, units and bounds of observations and actions are those of the numbers themselves."""

import jax
import numpy as np
import pytest

from envs_mjx import TASKS, make
from envs_mjx.channels import Channel, channels_of
from tests.toy import CliffWalker


@pytest.mark.parametrize("task", TASKS)
def test_a_tasks_numbers_lie_where_their_names_say(task):
    env = make(task, "native")
    channels = channels_of(env)
    state = env.reset(jax.random.key(0))
    obs = np.asarray(state.obs)
    assert len(channels.observation) == len(obs) == env.observation_size
    assert len(channels.action) == env.action_size
    # 5 physics steps, of 2.5 ms on the Sawyer and of 4 ms on the Franka
    assert channels.rate_hz == pytest.approx(50.0 if env.robot.name == "franka" else 80.0)
    found = {c.name: x for c, x in zip(channels.observation, obs, strict=True)}
    for axis, start, goal in zip("xyz", state.object_start, state.goal, strict=True):
        assert found[f"object {axis}"] == found[f"object {axis}, one decision ago"] == start
        assert found[f"goal {axis}"] == goal
    if env.robot.name == "sawyer":
        turn = [found[f"object quaternion {part}"] for part in "xyzw"]
        np.testing.assert_allclose(np.linalg.norm(turn), 1.0, atol=1e-5)
    for channel, x in zip(channels.observation, obs, strict=True):
        assert channel.low is None or channel.low - 1e-6 <= x <= channel.high + 1e-6, channel


def test_an_environment_that_says_nothing_has_names_by_number():
    channels = channels_of(CliffWalker())
    assert channels.observation == [Channel("observation 0"), Channel("observation 1")]
    assert channels.action == [Channel("action 0", None, -1.0, 1.0)]
    assert channels.rate_hz is None
