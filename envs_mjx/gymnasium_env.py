"""Any task through Gymnasium's interface, for trainers without JAX.

`SingleEnv` is one environment. `VectorEnv` steps N environments in one compiled call and restarts
a finished one within the same step. Both return fresh NumPy arrays. `info` holds the failure, since
it is not part of the reward and does not end the episode.
"""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector.utils import batch_space

from envs_mjx import forks
from envs_mjx.batch import BatchEnv
from envs_mjx.core import State
from envs_mjx.errors import EnvError, shown
from envs_mjx.robot_env import RobotEnv

_SEEDS = 2**31


def _spaces(env: RobotEnv) -> tuple[Box, Box]:
    """Spaces of one observation and one action, both float32."""
    if not isinstance(env, RobotEnv):
        raise EnvError(f"only what envs_mjx.make returns can be wrapped; got {shown(str(env))}")
    return (
        Box(-np.inf, np.inf, (env.observation_size,), np.float32),
        Box(-1.0, 1.0, (env.action_size,), np.float32),
    )


def _info(state: State) -> dict[str, np.ndarray]:
    """Signals of a step besides the reward, with the leading axes of `state`."""
    names = ("success", "failure", "failure_margin", "diverged", "base_reward")
    return {name: np.array(getattr(state, name)) for name in names}


def _checked(action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Return `action` in float32. A value that is not finite is allowed; it ends the episode."""
    try:
        action = np.array(action, np.float32)
    except (TypeError, ValueError) as error:
        raise EnvError(f"an action must be numbers of shape {shape}: {error}") from error
    if action.shape != shape:
        raise EnvError(f"an action must have shape {shape}; got {action.shape}")
    return action


class SingleEnv(gymnasium.Env):
    """One environment. `info` holds success, failure, failure_margin (m), diverged, base_reward."""

    def __init__(self, env: RobotEnv) -> None:
        """Wrap what `envs_mjx.make` returned."""
        self.observation_space, self.action_space = _spaces(env)
        self._shape = (env.action_size,)
        options = dict(env.compiler_options)
        self._start = jax.jit(env.reset, compiler_options=options)
        self._advance = jax.jit(env.step, compiler_options=options)
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode; the same seed starts the same one."""
        forks.check_process()
        super().reset(seed=seed)
        self._state = self._start(jax.random.key(int(self.np_random.integers(_SEEDS))))
        return np.array(self._state.obs), _info(self._state)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advance by one action [A]; call `reset` first and after each episode.

        Raises:
          EnvError: the action has another shape or is not numeric.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        forks.check_process()
        self._state = state = self._advance(self._state, _checked(action, self._shape))
        ends = bool(state.terminated), bool(state.truncated)
        return np.array(state.obs), float(state.reward), *ends, _info(state)


class VectorEnv(gymnasium.vector.VectorEnv):
    """N environments that restart within the step that ends them (autoreset SAME_STEP).

    Where an episode ended, `info["final_obs"]` holds its last observation. The other entries of
    `info` describe the step, not the new episode.
    """

    def __init__(self, env: RobotEnv, num_envs: int) -> None:
        """Wrap what `envs_mjx.make` returned, `num_envs` times."""
        same_step = gymnasium.vector.AutoresetMode.SAME_STEP
        self.metadata = {"render_modes": [], "autoreset_mode": same_step}
        self.single_observation_space, self.single_action_space = _spaces(env)
        batch, options = BatchEnv(env, num_envs), dict(env.compiler_options)
        self.num_envs = batch.num_envs
        self._shape = (self.num_envs, env.action_size)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._start = jax.jit(batch.reset, compiler_options=options)
        self._advance = jax.jit(batch.step, compiler_options=options)
        self._state: State | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start N episodes; the same seed starts the same ones."""
        forks.check_process()
        super().reset(seed=seed)
        self._state = self._start(self._key())
        return np.array(self._state.obs), _info(self._state)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advance by actions [N, A].

        Raises:
          EnvError: the actions have another shape or are not numeric.
        """
        if self._state is None:
            raise gymnasium.error.ResetNeeded("call reset before step")
        forks.check_process()
        actions = _checked(actions, self._shape)
        self._state, final = self._advance(self._state, actions, self._key())
        info: dict[str, Any] = _info(final)
        done = np.array(final.done)
        if done.any():
            last, seen = np.empty(self.num_envs, object), np.asarray(final.obs)
            for row in np.flatnonzero(done):
                last[row] = seen[row].copy()
            info |= {"final_obs": last, "_final_obs": done}
        ends = np.array(final.terminated), np.array(final.truncated)
        return np.array(self._state.obs), np.array(final.reward), *ends, info

    def _key(self) -> jax.Array:
        return jax.random.key(int(self.np_random.integers(_SEEDS)))
