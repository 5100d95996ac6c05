"""What the numbers of observations and actions mean: names, units and bounds, in order.

A policy that leaves the simulator needs to know (`farl export`). Observations are MetaWorld's.
"""

from typing import Any, NamedTuple

from envs_mjx.physics.backends import SUBSTEPS


class Channel(NamedTuple):
    """One number; a bound that is None is none, a unit that is None is unknown."""

    name: str
    unit: str | None = None
    low: float | None = None
    high: float | None = None


class Channels(NamedTuple):
    """All numbers that an environment gives and takes, and how often it takes an action."""

    observation: list[Channel]
    action: list[Channel]
    rate_hz: float | None


_HAND = (("x", -0.525, 0.525), ("y", 0.348, 1.025), ("z", -0.0525, 0.7))  # m, as MetaWorld clips
_QUATERNION = ("x", "y", "z", "w")
_FRAME, _PADDING = 18, 7
_MOTION = "0.01 m per decision"


def channels_of(env: Any) -> Channels:
    """Names, units and bounds of `env`, one environment or a batch of it.

    One that is not of MetaWorld's layout has names by number, without units or bounds; actions are
    in [-1, 1] everywhere. The rate is simulated time's.
    """
    env = getattr(env, "env", env)
    model = getattr(env, "model", None)
    rate = None if model is None else 1.0 / (SUBSTEPS * float(model.opt.timestep))
    goal = getattr(getattr(env, "task", None), "goal_low", None)
    if goal is not None and (env.observation_size, env.action_size) == (2 * _FRAME + 3, 4):
        return Channels(_metaworld(env.task), _hand_action(), rate)
    observation = [Channel(f"observation {i}") for i in range(env.observation_size)]
    action = [Channel(f"action {i}", None, -1.0, 1.0) for i in range(env.action_size)]
    return Channels(observation, action, rate)


def _metaworld(task: Any) -> list[Channel]:
    now, before = _frame(""), _frame(", one decision ago")
    places = zip("xyz", task.goal_low, task.goal_high, strict=True)
    goal = [Channel(f"goal {axis}", "m", float(low), float(high)) for axis, low, high in places]
    return [*now, *before, *goal]


def _frame(when: str) -> list[Channel]:
    hand = [Channel(f"hand {axis}{when}", "m", low, high) for axis, low, high in _HAND]
    opening = Channel(f"gripper opening{when}", "0.1 m", 0.0, 1.0)
    place = [Channel(f"object {axis}{when}", "m") for axis in "xyz"]
    turn = [Channel(f"object quaternion {part}{when}", "1", -1.0, 1.0) for part in _QUATERNION]
    padding = [Channel(f"padding {i}{when}", "1", 0.0, 0.0) for i in range(_PADDING)]
    return [*hand, opening, *place, *turn, *padding]


def _hand_action() -> list[Channel]:
    motion = [Channel(f"hand motion {axis}", _MOTION, -1.0, 1.0) for axis in "xyz"]
    return [*motion, Channel("gripper effort, 1 closes", "1", -1.0, 1.0)]
