"""N user environments as the learner's `BatchedEnv`, by one ordered callback a step.

Ordered callbacks run exactly once and in program order. So an environment may have state that
cannot be copied, like a robot's. They cannot be vmapped or spread over devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax.experimental import io_callback

from envs_gym.host import Step
from envs_gym.task import FACTS, HostTask

MAX_SEED = 2**31 - 1


@struct.dataclass
class HostState:
    """The state of N environments that the learner sees. Fields are [N, ...]."""

    obs: jax.Array  # [N, D] f32
    reward: jax.Array  # [N] f32
    base_reward: jax.Array  # [N] f32, equal to reward
    success: jax.Array  # [N] bool
    failure: jax.Array  # [N] bool, C(s, a) of this step
    failure_margin: jax.Array | None  # [N] f32; None without a failure_margin function
    terminated: jax.Array  # [N] bool: by the environment; not bootstrapped
    truncated: jax.Array  # [N] bool: time limit, or cut off; bootstrapped
    diverged: jax.Array  # [N] bool: cut off; the step is not learnt from
    step_count: jax.Array  # [N] i32
    failing_steps: jax.Array  # [N] i32
    episode_return: jax.Array  # [N] f32
    ticket: jax.Array  # [N] i32, see `Host`

    @property
    def done(self) -> jax.Array:
        """Whether the episode ended with this step, [N] bool."""
        return self.terminated | self.truncated


class HostBatch:
    """`num_envs` environments of a task with automatic resets."""

    def __init__(
        self, task: HostTask, num_envs: int, references: tuple[float, float] = (np.nan, np.nan)
    ) -> None:
        """Wrap a task; `references` are its random and expert return, if known."""
        self.env, self.num_envs = task, num_envs
        self.random_return, self.expert_return = references
        for name in FACTS:
            setattr(self, name, getattr(task, name))

    def reset(self, key: jax.Array) -> HostState:
        """Start an episode in every environment; the key decides the seeds."""
        n = self.num_envs
        wide = _array((n, self.observation_size))
        shapes = wide, _array((n,)), _array((n,), jnp.int32)
        obs, margin, ticket = io_callback(
            lambda seeds: self.env.host(n).reset(seeds), shapes, self._seeds(key), ordered=True
        )
        return self._fresh(obs, margin, ticket)

    def step(
        self, state: HostState, action: jax.Array, key: jax.Array
    ) -> tuple[HostState, HostState]:
        """Step every row, then restart ended ones: (state to act in next, outcome of the step)."""
        n = self.num_envs
        flag, number, wide = _array((n,), bool), _array((n,)), _array((n, self.observation_size))
        ticket = _array((n,), jnp.int32)
        flags = dict.fromkeys(("failure", "success", "terminated", "truncated", "stale"), flag)
        shapes = Step(
            obs=wide,
            following=wide,
            reward=number,
            margin=number,
            following_margin=number,
            ticket=ticket,
            **flags,
        )
        found = io_callback(
            lambda *inputs: self.env.host(n).step(*inputs),
            shapes,
            *(state.ticket, state.obs, action, self._seeds(key)),
            ordered=True,
        )
        outcome = HostState(
            obs=found.obs,
            reward=found.reward,
            base_reward=found.reward,
            success=found.success,
            failure=found.failure,
            failure_margin=self._margin(found.margin),
            terminated=found.terminated,
            truncated=found.truncated,
            diverged=found.stale,
            step_count=state.step_count + 1,
            failing_steps=state.failing_steps + found.failure,
            episode_return=state.episode_return + found.reward,
            ticket=found.ticket,
        )
        fresh = self._fresh(found.following, found.following_margin, found.ticket)

        def restart(new: jax.Array, old: jax.Array) -> jax.Array:
            done = outcome.done.reshape((-1,) + (1,) * (old.ndim - 1))
            return jnp.where(done, new, old)

        return jax.tree.map(restart, fresh, outcome), outcome

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the recovery controller's actions: [N, D] -> [N, A], not clipped."""
        return jax.vmap(self.env.recovery)(obs)

    def _seeds(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, (self.num_envs,), 0, MAX_SEED)

    def _margin(self, margin: jax.Array) -> jax.Array | None:
        return margin if self.env.functions.has_margin else None

    def _fresh(self, obs: jax.Array, margin: jax.Array, ticket: jax.Array) -> HostState:
        zero, no = jnp.zeros(self.num_envs), jnp.zeros(self.num_envs, bool)
        none = jnp.zeros(self.num_envs, jnp.int32)
        return HostState(
            obs=obs,
            reward=zero,
            base_reward=zero,
            success=no,
            failure=no,
            failure_margin=self._margin(margin),
            terminated=no,
            truncated=no,
            diverged=no,
            step_count=none,
            failing_steps=none,
            episode_return=zero,
            ticket=ticket,
        )


def _array(shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)
