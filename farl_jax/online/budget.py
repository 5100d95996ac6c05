"""How long an online run lasts, and which steps of its rollouts count.

A robot's budget is in episodes, and it learns between them. A compiled rollout has a fixed length,
so it may run on: steps after its last whole episode, or after the budget's last one, do not count.
They are in no total, and nothing learns from them.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.config import OnlineConfig


def counted_steps(done: jax.Array, whole: int, left: jax.Array | None) -> jax.Array:
    """Which steps of a rollout count, [T, N] bool.

    Args:
        done: [T, N] bool, the episode ends with this step.
        whole: an environment's steps after its `whole`-th episode do not count; 0: they do.
        left: [] episodes left. Steps after the last of them do not count, in the order of time,
            then of environments. None: there is no such limit.
    """
    chex.assert_rank(done, 2)
    counted = jnp.ones_like(done)
    if whole:
        counted = jnp.cumsum(done, axis=0) - done < whole
    if left is not None:
        ends = (done & counted).reshape(-1)
        counted &= (jnp.cumsum(ends) - ends < left).reshape(done.shape)
    return counted


class Progress(NamedTuple):
    """How far a run is."""

    updates: int
    steps: int
    episodes: int


@dataclass(frozen=True)
class Budget:
    """The budget of a run with `num_envs` environments."""

    config: OnlineConfig
    num_envs: int

    @property
    def steps_per_update(self) -> int:
        """Steps of a rollout, over all environments. With whole episodes fewer may count."""
        return self.config.rollout * self.num_envs

    @property
    def all_count(self) -> bool:
        """Whether every step of every rollout counts."""
        return self.config.episodes is None and not self.config.whole_episodes

    def counted(self, done: jax.Array, episodes: jax.Array) -> jax.Array | None:
        """Which steps of a rollout [T, N] count after `episodes` []; None: all."""
        if self.all_count:
            return None
        most = self.config.episodes
        left = None if most is None else most - episodes
        return counted_steps(done, self.config.whole_episodes, left)

    def progress(self, state: Any) -> Progress:
        """How far an `OnlineState` is; equal in seeds that train together. Waits for the state."""
        steps, episodes = (int(np.max(x)) for x in (state.env_steps, state.counters.episodes))
        parts = self.config.whole_episodes * self.num_envs
        updates = -(-episodes // parts) if parts else -(-steps // self.steps_per_update)
        return Progress(updates, steps, episodes)

    def after(self, before: Progress, state: Any) -> Progress:
        """How far `state` is, one update after `before`. Waits only if steps may not count."""
        if not self.all_count:
            return self.progress(state)
        updates = before.updates + 1
        return Progress(updates, updates * self.steps_per_update, before.episodes)

    def spent(self, progress: Progress, env_steps: int) -> bool:
        """Whether a run of at most `env_steps` ends here."""
        most = self.config.episodes
        return progress.steps >= env_steps or (most is not None and progress.episodes >= most)
