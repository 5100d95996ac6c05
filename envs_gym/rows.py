"""Gymnasium's two interfaces behind one: `reset`, and `step` with restarts, of N environments."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from envs_gym.errors import HostError, blame
from envs_gym.spaces import flatten


class Outcome(NamedTuple):
    """The outcome of a step of N environments, before any restart."""

    obs: np.ndarray  # [N, D]
    reward: np.ndarray  # [N]
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    infos: list[dict[str, Any]]


Late = Callable[[np.ndarray], np.ndarray]
"""done [N] -> done [N], also true at our step limit."""


class SingleRows:
    """N objects of `gymnasium.Env`, stepped in turn in this thread; one may be a robot."""

    def __init__(self, envs: Sequence[gymnasium.Env]) -> None:
        """Wrap environments with equal spaces."""
        self.envs, self.space = list(envs), envs[0].observation_space

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Start all episodes by their seeds: [N] -> observations [N, D]."""
        return np.stack([self._reset(i, seed) for i, seed in enumerate(seeds)])

    def step(
        self, action: np.ndarray, seeds: np.ndarray, late: Late
    ) -> tuple[Outcome, np.ndarray, np.ndarray]:
        """Step all, then restart ended ones: (outcome, done [N], observations to act on)."""
        answers = []
        for env, own in zip(self.envs, action, strict=True):
            try:
                answers.append(env.step(own))
            except Exception as error:
                raise blame("the environment's step", error) from error
        obs, reward, terminated, truncated, infos = zip(*answers, strict=True)
        flat = np.stack([flatten(self.space, own) for own in obs])
        flags = [np.asarray(own, bool) for own in (terminated, truncated)]
        outcome = Outcome(flat, np.asarray(reward, np.float32), *flags, list(infos))
        done, following = late(flags[0] | flags[1]), flat.copy()
        for i in np.flatnonzero(done):
            following[i] = self._reset(i, seeds[i])
        return outcome, done, following

    def _reset(self, i: int, seed: Any) -> np.ndarray:
        try:
            obs, _ = self.envs[i].reset(seed=int(seed))
        except Exception as error:
            raise blame("the environment's reset", error) from error
        return flatten(self.space, obs)


class VectorRows:
    """One `gymnasium.vector.VectorEnv` without automatic restarts (AutoresetMode.DISABLED)."""

    def __init__(self, env: gymnasium.vector.VectorEnv) -> None:
        """Wrap it.

        Raises:
            HostError: it restarts automatically.
        """
        if env.metadata.get("autoreset_mode") != AutoresetMode.DISABLED:
            raise HostError(
                "its VectorEnv restarts automatically and loses last observations and seeds: "
                "make it with autoreset_mode=gymnasium.vector.AutoresetMode.DISABLED"
            )
        self.env, self.space = env, env.single_observation_space

    def reset(self, seeds: np.ndarray) -> np.ndarray:
        """Start all episodes by their seeds: [N] -> observations [N, D]."""
        return self._reset([int(seed) for seed in seeds], None)

    def step(
        self, action: np.ndarray, seeds: np.ndarray, late: Late
    ) -> tuple[Outcome, np.ndarray, np.ndarray]:
        """Step all, then restart ended ones: (outcome, done [N], observations to act on)."""
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
        except Exception as error:
            raise blame("the environment's step", error) from error
        flat = flatten(self.space, obs)
        flags = [np.array(own, bool) for own in (terminated, truncated)]
        infos = [_row(info, i) for i in range(len(flat))]
        outcome = Outcome(flat.copy(), np.array(reward, np.float32), *flags, infos)
        done = late(flags[0] | flags[1])
        if not done.any():
            return outcome, done, outcome.obs
        fresh = self._reset([int(seed) for seed in seeds], {"reset_mask": done})
        return outcome, done, np.where(done[:, None], fresh, outcome.obs)

    def _reset(self, seeds: list[int], options: dict[str, Any] | None) -> np.ndarray:
        try:
            obs, _ = self.env.reset(seed=seeds, options=options)
        except Exception as error:
            raise blame("the environment's reset", error) from error
        return flatten(self.space, obs).copy()


def _row(info: dict[str, Any], i: int) -> dict[str, Any]:
    """Return row i of a VectorEnv's info; a mask `_key` says which rows have a key."""
    own = {}
    for key, value in info.items():
        mask = info.get(f"_{key}")
        if key.startswith("_") or (mask is not None and not mask[i]):
            continue
        own[key] = value[i] if isinstance(value, np.ndarray | list | tuple) else value
    return own
