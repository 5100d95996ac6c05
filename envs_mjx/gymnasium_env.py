"""Any task as a gymnasium environment, for trainers that know nothing of JAX.

`VectorEnv` steps N environments in one compiled call and restarts a finished one within the same
step; `SingleEnv` is one environment. Both hand out NumPy arrays. A failure is in `info`, as it is
no part of the reward and ends nothing.
"""

from typing import Any, ClassVar

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector.utils import batch_space

from envs_mjx.batch import BatchEnv
from envs_mjx.core import State
from envs_mjx.sawyer import SawyerEnv

_SEEDS = 2**31


def _spaces(env: SawyerEnv) -> tuple[Box, Box]:
    """Spaces of one observation and one action, both float32."""
    return (
        Box(-np.inf, np.inf, (env.observation_size,), np.float32),
        Box(-1.0, 1.0, (env.action_size,), np.float32),
    )


def _info(state: State) -> dict[str, np.ndarray]:
    """What a step tells besides the reward, with the leading axes of `state`."""
    names = ("success", "failure", "failure_margin", "diverged", "base_reward")
    return {name: np.asarray(getattr(state, name)) for name in names}


class SingleEnv(gymnasium.Env):
    """One environment. `info` holds success, failure, failure_margin (m), diverged, base_reward."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, env: SawyerEnv) -> None:
        """Wrap what `envs_mjx.make` returned."""
        self.observation_space, self.action_space = _spaces(env)
        options = dict(env.compiler_options)
        self._start = jax.jit(env.reset, compiler_options=options)
        self._advance = jax.jit(env.step, compiler_options=options)
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed starts the same one."""
        super().reset(seed=seed)
        self._state = self._start(jax.random.key(int(self.np_random.integers(_SEEDS))))
        return np.asarray(self._state.obs), _info(self._state)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one action [4]; call `reset` first and after each end."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._state = state = self._advance(self._state, action)
        ends = bool(state.terminated), bool(state.truncated)
        return np.asarray(state.obs), float(state.reward), *ends, _info(state)


class VectorEnv(gymnasium.vector.VectorEnv):
    """N environments that restart within the step that ends them (autoreset SAME_STEP).

    Where an episode ended, `info["final_obs"]` holds its true last observation; `info`'s other
    entries are those of the step itself, never of the fresh episode.
    """

    metadata: ClassVar[dict[str, Any]] = {
        "render_modes": [],
        "autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP,
    }

    def __init__(self, env: SawyerEnv, num_envs: int) -> None:
        """Wrap what `envs_mjx.make` returned, `num_envs` times."""
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = _spaces(env)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        batch, options = BatchEnv(env, num_envs), dict(env.compiler_options)
        self._start = jax.jit(batch.reset, compiler_options=options)
        self._advance = jax.jit(batch.step, compiler_options=options)
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start N episodes; the same seed starts the same ones."""
        super().reset(seed=seed)
        self._state = self._start(self._key())
        return np.asarray(self._state.obs), _info(self._state)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance by actions [N, 4]."""
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        self._state, final = self._advance(self._state, actions, self._key())
        info: dict[str, Any] = _info(final)
        done = np.asarray(final.done)
        if done.any():
            last = np.empty(self.num_envs, object)
            for row in np.flatnonzero(done):
                last[row] = np.asarray(final.obs[row])
            info |= {"final_obs": last, "_final_obs": done}
        ends = np.asarray(final.terminated), np.asarray(final.truncated)
        return np.asarray(self._state.obs), np.asarray(final.reward), *ends, info

    def _key(self) -> jax.Array:
        return jax.random.key(int(self.np_random.integers(_SEEDS)))
