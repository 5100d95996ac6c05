"""Names, units and bounds of the numbers in observations and actions, in order.

An exported policy carries them in its contract (`farl export`).
"""

from typing import Any, NamedTuple

from envs_mjx.physics.backends import SUBSTEPS
from envs_mjx.robots.robot import Channel


class Channels(NamedTuple):
    """Channels of observations and actions, and actions per second."""

    observation: list[Channel]
    action: list[Channel]
    rate_hz: float | None


def channels_of(env: Any) -> Channels:
    """Return the channels of `env`, an environment or a batch of it.

    The robot names its channels. Otherwise a channel is named by its number and has no unit.
    Actions are in [-1, 1]. The rate is in simulated time.
    """
    env = getattr(env, "env", env)
    model = getattr(env, "model", None)
    rate = None if model is None else 1.0 / (SUBSTEPS * float(model.opt.timestep))
    robot: Any = getattr(env, "robot", None)
    if hasattr(robot, "frame_channels"):
        return Channels(_observation(robot.frame_channels, env.task), robot.action_channels, rate)
    observation = [Channel(f"observation {i}") for i in range(env.observation_size)]
    action = [Channel(f"action {i}", None, -1.0, 1.0) for i in range(env.action_size)]
    return Channels(observation, action, rate)


def _observation(frame: list[Channel], task: Any) -> list[Channel]:
    """The current frame, the previous frame and the goal."""
    before = [one._replace(name=f"{one.name}, one decision ago") for one in frame]
    places = zip("xyz", task.goal_low, task.goal_high, strict=True)
    goal = [Channel(f"goal {axis}", "m", float(low), float(high)) for axis, low, high in places]
    return [*frame, *before, *goal]
