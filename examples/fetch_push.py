"""FetchPush of gymnasium-robotics with a failure: the object leaves the table.

    farl run --env examples.fetch_push:make --preset quick

The environment is not ours. This file adds a failure margin, and controllers for demonstrations.
An observation joins the environment's Dict in sorted order: achieved_goal [3], desired_goal [3],
observation [25].
"""

from typing import Any

import gymnasium
import numpy as np

TABLE_LOW, TABLE_HIGH = np.array([1.05, 0.40]), np.array([1.55, 1.10])  # m, the table top's edges
HALF = 0.025  # m, of the object's side
DANGER_MARGIN, SAFE_MARGIN, DANGER_LEAD = 0.05, 0.09, 4.0  # m, m, steps
GAIN = 10.0  # action per metre; an action of 1 moves the gripper by about 5 cm a step
HEIGHT = 0.42  # m, of the gripper while it pushes
BEHIND = 0.06  # m, from the object's centre, where a push begins


def make() -> gymnasium.Env:
    """Make FetchPush. Its reward is minus the distance to the goal; an episode has 50 steps."""
    import gymnasium_robotics

    _mend_joints()
    gymnasium.register_envs(gymnasium_robotics)
    return gymnasium.make("FetchPushDense-v4")


def failure_margin(obs: np.ndarray) -> float:
    """Return the distance from the object's centre to the nearest edge, less half its side, m."""
    xy = obs[:2]
    return float(min((xy - TABLE_LOW).min(), (TABLE_HIGH - xy).min()) - HALF)


def failure(obs: np.ndarray, info: dict) -> bool:
    """Return whether the object's centre is beyond an edge, or the object has fallen."""
    return failure_margin(obs) < -HALF or obs[2] < 0.38


def expert(obs: np.ndarray) -> np.ndarray:
    """Push the object to the goal."""
    return _push(obs, obs[3:5])


def careless(obs: np.ndarray, trait: float) -> np.ndarray:
    """Push the object in the trait's direction, without end."""
    angle = 2.0 * np.pi * trait
    return _push(obs, obs[:2] + 0.3 * np.array([np.cos(angle), np.sin(angle)]))


def recovery(obs: np.ndarray) -> np.ndarray:
    """Go around the object and push it back to the table's middle."""
    return _push(obs, (TABLE_LOW + TABLE_HIGH) / 2.0)


def _push(obs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """One action of pushing the object towards `target` [2] m: rise, go behind it, sink, push."""
    block, grip = obs[:3], obs[6:9]
    way = target - block[:2]
    distance = float(np.linalg.norm(way))
    if distance < 0.02:
        return np.array([0.0, 0.0, 1.0, 0.0])
    ahead = way / distance
    offset = grip[:2] - block[:2]
    along, across = offset @ ahead, offset @ np.array([-ahead[1], ahead[0]])
    start = block[:2] - BEHIND * ahead
    if along < -0.02 and abs(across) < 0.02 and grip[2] < HEIGHT + 0.03:
        speed = min(1.0, GAIN * (distance + 0.01))
        move = speed * ahead - GAIN * across * np.array([-ahead[1], ahead[0]])
        return np.array([*np.clip(move, -1.0, 1.0), GAIN * (HEIGHT - grip[2]), 0.0]).clip(-1.0, 1.0)
    over = np.linalg.norm(grip[:2] - start) < 0.02
    height = HEIGHT if over else block[2] + 0.09
    near = np.linalg.norm(offset) < 0.08 and not over and grip[2] < block[2] + 0.06
    side = np.zeros(2) if near else GAIN * (start - grip[:2])
    return np.array([*side, GAIN * (height - grip[2]), 0.0]).clip(-1.0, 1.0)


def _mend_joints() -> None:
    """Let gymnasium-robotics 1.4.2 read joints of MuJoCo 3.17.

    Its test `jnt_type in (mjJNT_HINGE, ...)` is False with the enums of this MuJoCo.
    """
    from gymnasium_robotics.utils import mujoco_utils

    mujoco_utils.set_joint_qpos = lambda model, data, name, value: _put(data, name, "qpos", value)
    mujoco_utils.set_joint_qvel = lambda model, data, name, value: _put(data, name, "qvel", value)
    mujoco_utils.get_joint_qpos = lambda model, data, name: data.joint(name).qpos.copy()
    mujoco_utils.get_joint_qvel = lambda model, data, name: data.joint(name).qvel.copy()


def _put(data: Any, name: str, field: str, value: np.ndarray) -> None:
    getattr(data.joint(name), field)[:] = value
