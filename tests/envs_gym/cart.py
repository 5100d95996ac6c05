"""A cart between a goal and an edge, as a `gymnasium.Env` that its tests know by heart.

x moves by 0.02 a, a in [-2, 4]; the reward is -|x - goal|; beyond 0.9 it fails, which may end the
episode. Observations are a Dict, so that the flat one is (goal, x).
"""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

GOAL, EDGE, LIMIT = 0.6, 0.9, 20


class Cart(gymnasium.Env):
    """`bad` names what goes wrong at the step of number `at`."""

    observation_space = Dict({"x": Box(-9, 9, (1,)), "goal": Box(-9, 9, (1,))})
    action_space = Box(np.float32([-2.0]), np.float32([4.0]))
    made = 0

    def __init__(self, ends=False, bad=None, at=3, info=None):
        self.ends, self.bad, self.at, self.info = ends, bad, at, info
        self.steps, self.count = 0, 0
        type(self).made += 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.count = self.np_random.uniform(-0.5, 0.0), 0
        return self._obs(), {}

    def _obs(self):
        return {"x": np.array([self.x], np.float32), "goal": np.array([GOAL], np.float32)}

    def step(self, action):
        self.steps, self.count = self.steps + 1, self.count + 1
        wrong = self.bad if self.steps == self.at else None
        if wrong == "raise":
            raise RuntimeError("the arm does not answer\nat all")
        self.x += 0.02 * float(action[0])
        failure = self.x > EDGE
        info = {"cost": float(failure), "is_success": abs(self.x - GOAL) < 0.1}
        obs = self._obs()
        if wrong == "nan":
            obs["x"] = np.array([np.nan], np.float32)
        if wrong == "shape":
            obs["x"] = np.zeros(2, np.float32)
        reward = np.inf if wrong == "reward" else -abs(self.x - GOAL)
        ended = bool(failure and self.ends)
        info = info if self.info is None else self.info
        return obs, reward, ended, self.count >= LIMIT, info


def expert(obs):
    return np.clip(20.0 * (obs[:1] - obs[1:]), -2.0, 4.0)


def careless(obs, trait):
    return np.array([1.0 + 3.0 * trait])


def recovery(obs):
    return np.array([-2.0])
