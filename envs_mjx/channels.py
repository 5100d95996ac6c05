"""What the numbers of observations and actions mean: names, units and bounds, in order.

A policy that leaves the simulator needs to know (`farl export`).
"""

from typing import Any, NamedTuple

from envs_mjx.physics.backends import SUBSTEPS
from envs_mjx.robots.robot import Channel


class Channels(NamedTuple):
    """All numbers that an environment gives and takes, and how often it takes an action."""

    observation: list[Channel]
    action: list[Channel]
    rate_hz: float | None


def channels_of(env: Any) -> Channels:
    """Return names, units and bounds of `env`, one environment or a batch of it.

    The robot names its own channels. Where there is none that does, a channel is named by its
    number and has no unit. Actions are in [-1, 1] everywhere. The rate is in simulated time.
    """
    env = getattr(env, "env", env)
    model = getattr(env, "model", None)
    rate = None if model is None else 1.0 / (SUBSTEPS * float(model.opt.timestep))
    robot = getattr(env, "robot", None)
    if hasattr(robot, "frame_channels"):
        return Channels(_observation(robot.frame_channels, env.task), robot.action_channels, rate)
    observation = [Channel(f"observation {i}") for i in range(env.observation_size)]
    action = [Channel(f"action {i}", None, -1.0, 1.0) for i in range(env.action_size)]
    return Channels(observation, action, rate)


def _observation(frame: list[Channel], task: Any) -> list[Channel]:
    """The frame of now, that of one decision ago, and the goal."""
    before = [one._replace(name=f"{one.name}, one decision ago") for one in frame]
    places = zip("xyz", task.goal_low, task.goal_high, strict=True)
    goal = [Channel(f"goal {axis}", "m", float(low), float(high)) for axis, low, high in places]
    return [*frame, *before, *goal]
