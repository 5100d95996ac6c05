"""A 1-D cliff walker with the environment protocol: known values and failure times, no physics.

The walker stands at x in [0, 1.2]; an action moves it by 0.1 a, clipped to [-1, 1]. Reward is 1 per
step within 0.05 of x = 0.5, else 0. Standing beyond x = 0.9 is a failure, which does not end the
episode; x <= 0.05 is the success, which does and pays 1 for each step left. A tempting walker also
pays `temptation` for each failing step.
"""

from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import struct

from envs_mjx import BatchEnv

CLIFF, STEP, LIMIT = 0.9, 0.1, 20


@struct.dataclass
class ToyState:
    """The fields of `envs_mjx.core.State`, observation [2] = (x, share of the episode gone)."""

    physics: jax.Array  # [] x
    obs: jax.Array
    object_start: jax.Array
    goal: jax.Array
    reward: jax.Array
    base_reward: jax.Array
    success: jax.Array
    failure: jax.Array
    failure_margin: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    diverged: jax.Array
    step_count: jax.Array
    failing_steps: jax.Array
    episode_return: jax.Array

    @property
    def done(self) -> jax.Array:
        return self.terminated | self.truncated


class CliffWalker:
    """The single environment; wrap it in `BatchEnv`."""

    name, backend = "cliff_walker", "none"
    observation_size, action_size, episode_limit = 2, 1, LIMIT
    random_return, expert_return, success_reward = 0.0, 20.0, 1.0
    danger_margin, danger_lead, safe_margin = 0.15, 0.0, 0.3
    compiler_options: ClassVar[dict[str, bool]] = {}

    def __init__(self, temptation: float = 0.0) -> None:
        self.temptation = temptation

    def reset(self, key: jax.Array) -> ToyState:
        return self.reset_at(jax.random.uniform(key, minval=0.3, maxval=0.85))

    def reset_at(self, x: jax.Array) -> ToyState:
        x, no, zero = jnp.asarray(x, jnp.float32), jnp.bool_(False), jnp.float32(0.0)
        return ToyState(
            physics=x,
            obs=jnp.stack([x, zero]),
            object_start=x,
            goal=jnp.float32(0.5),
            reward=zero,
            base_reward=zero,
            success=no,
            failure=no,
            failure_margin=CLIFF - x,
            terminated=no,
            truncated=no,
            diverged=no,
            step_count=jnp.int32(0),
            failing_steps=jnp.int32(0),
            episode_return=zero,
        )

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Straight back from the cliff: [2] -> [1]."""
        return jnp.array([-1.0])

    def step(self, state: ToyState, action: jax.Array) -> ToyState:
        x = jnp.clip(state.physics + STEP * jnp.clip(action[0], -1.0, 1.0), 0.0, 1.2)
        count = state.step_count + 1
        failure, success = x > CLIFF, x <= 0.05
        base = (jnp.abs(x - 0.5) < 0.05).astype(jnp.float32)
        reward = base + jnp.where(success, 1.0 * (LIMIT - count), self.temptation * failure)
        return state.replace(
            physics=x,
            obs=jnp.stack([x, count / LIMIT]),
            reward=reward,
            base_reward=base,
            success=success,
            failure=failure,
            failure_margin=CLIFF - x,
            terminated=success,
            truncated=~success & (count >= LIMIT),
            step_count=count,
            failing_steps=state.failing_steps + failure,
            episode_return=state.episode_return + reward,
        )


def make_toy(num_envs: int, temptation: float = 0.0) -> BatchEnv:
    """N cliff walkers that restart themselves."""
    return BatchEnv(CliffWalker(temptation), num_envs)
