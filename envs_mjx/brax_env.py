"""Any task in the convention of Brax and MuJoCo Playground, for trainers that expect it.

`reset(rng)` and `step(state, action)` are pure and hold one environment; the trainer's wrappers
vmap it and restart it. Our own time limit is kept: `done` says that the episode ended for whatever
reason and `info["truncation"]` that it was no success, so a wrapper need not count steps.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs_mjx.core import State
from envs_mjx.sawyer import SawyerEnv


@struct.dataclass
class BraxState:
    """The fields that Brax-style trainers read; wrappers add leading axes and entries to `info`."""

    data: State  # our own state
    obs: jax.Array  # [39]
    reward: jax.Array  # [] f32
    done: jax.Array  # [] f32, 1 where the episode ended with this step
    metrics: dict[str, jax.Array]  # [] f32 each: success, failure, failure_margin (m)
    info: dict[str, Any]  # truncation [] f32, steps [] i32


class BraxEnv:
    """One environment; jit with `compiler_options=dict(env.compiler_options)`."""

    def __init__(self, env: SawyerEnv) -> None:
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
        return BraxState(state, state.obs, state.reward, _number(state.done), *_told(state))

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        """Advance by one action [4]; entries that wrappers put into `metrics` or `info` stay."""
        new = self._env.step(state.data, action)
        metrics, info = _told(new)
        return BraxState(
            data=new,
            obs=new.obs,
            reward=new.reward,
            done=_number(new.done),
            metrics={**state.metrics, **metrics},
            info={**state.info, **info},
        )


def _told(state: State) -> tuple[dict[str, jax.Array], dict[str, Any]]:
    metrics = {name: _number(getattr(state, name)) for name in ("success", "failure")}
    metrics["failure_margin"] = state.failure_margin
    return metrics, {"truncation": _number(state.truncated), "steps": state.step_count}


def _number(flag: jax.Array) -> jax.Array:
    return flag.astype(jnp.float32)
