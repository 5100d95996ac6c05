"""Any task in Brax's convention, for trainers that expect it.

`reset(rng)` and `step(state, action)` are pure and hold one environment; Brax's wrappers vmap it,
end its episodes at `episode_length` and restart it. So `done` here is success alone (and a
simulation that gave up): the time limit is the wrapper's, and bootstrapped.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs_mjx.core import State
from envs_mjx.robot_env import RobotEnv


@struct.dataclass
class BraxState:
    """The fields that Brax-style trainers read; wrappers add leading axes and entries to `info`."""

    pipeline_state: State  # our own state
    obs: jax.Array  # [observation_size]
    reward: jax.Array  # [] f32
    done: jax.Array  # [] f32, 1 where the episode ended with this step, but for the time limit
    metrics: dict[str, jax.Array]  # [] f32 each: success, failure, failure_margin (m)
    info: dict[str, Any]  # the wrappers' own


class BraxEnv:
    """One environment; jit with `compiler_options=dict(env.compiler_options)`."""

    def __init__(self, env: RobotEnv) -> None:
        """Wrap what `envs_mjx.make` returned."""
        self._env = env
        self.observation_size = env.observation_size
        self.action_size = env.action_size
        self.episode_length = env.episode_limit
        self.backend = env.backend
        self.compiler_options: Mapping[str, bool] = env.compiler_options

    @property
    def unwrapped(self) -> "BraxEnv":
        """The innermost environment: this one."""
        return self

    def reset(self, rng: jax.Array) -> BraxState:
        """Start an episode."""
        state = self._env.reset(rng)
        return BraxState(state, state.obs, state.reward, _ended(state), _metrics(state), {})

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        """Advance by one action [4]; entries that wrappers put into `metrics` or `info` stay."""
        new = self._env.step(state.pipeline_state, action)
        return state.replace(
            pipeline_state=new,
            obs=new.obs,
            reward=new.reward,
            done=_ended(new),
            metrics={**state.metrics, **_metrics(new)},
        )


def _ended(state: State) -> jax.Array:
    return (state.terminated | state.diverged).astype(jnp.float32)


def _metrics(state: State) -> dict[str, jax.Array]:
    flags = {name: getattr(state, name) for name in ("success", "failure")}
    numbers = {name: flag.astype(jnp.float32) for name, flag in flags.items()}
    return numbers | {"failure_margin": state.failure_margin}
