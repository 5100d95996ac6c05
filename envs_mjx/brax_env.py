"""Any task through Brax's interface.

`reset(rng)` and `step(state, action)` are pure and hold one environment. Brax's wrappers vmap it,
end its episodes at `episode_length` and restart it. So `done` here means success or divergence.
The wrapper handles the time limit and bootstraps there.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from envs_mjx.core import EnvFacts, State, facts_of
from envs_mjx.robot_env import RobotEnv


class BraxState(struct.PyTreeNode):
    """The fields that Brax-style trainers read; wrappers add leading axes and entries to `info`."""

    pipeline_state: State  # our own state
    obs: jax.Array  # [observation_size]
    reward: jax.Array  # [] f32
    done: jax.Array  # [] f32, 1 after success or divergence; the time limit does not count
    metrics: dict[str, jax.Array]  # [] f32 each: success, failure, failure_margin (m)
    info: dict[str, Any]  # the wrappers' own


class BraxEnv(EnvFacts):
    """One environment; jit with `compiler_options=dict(env.compiler_options)`."""

    def __init__(self, env: RobotEnv) -> None:
        """Wrap what `envs_mjx.make` returned."""
        super().__init__(**facts_of(env))
        self._env, self.episode_length = env, env.episode_limit

    @property
    def unwrapped(self) -> "BraxEnv":
        """This environment, which is the innermost."""
        return self

    def reset(self, rng: jax.Array) -> BraxState:
        """Start an episode."""
        state = self._env.reset(rng)
        return BraxState(state, state.obs, state.reward, _ended(state), _metrics(state), {})

    def step(self, state: BraxState, action: jax.Array) -> BraxState:
        """Advance by one action [A]; keep the wrappers' entries in `metrics` and `info`."""
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
