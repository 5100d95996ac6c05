"""Many environments at once; each restarts as soon as its episode ends."""

import copy
import operator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from envs_mjx.core import Env, EnvFacts, State, facts_of
from envs_mjx.errors import EnvError

ROWS = "envs"
"""Axis of a mesh (`jax.set_mesh`) along which devices share the rows."""
ROWS_OF_SHARE = 64
"""Rows that a thread of its own should have at least (docs/experiments.md, row 100)."""


class BatchEnv(EnvFacts):
    """`num_envs` copies of one environment with automatic resets.

    All methods are pure: jit them, scan over them, or vmap them over seeds. On a mesh with an axis
    ROWS, each device steps its own share of the rows. If the rows do not divide evenly, every
    device steps all of them.
    """

    def __init__(self, env: Env, num_envs: int) -> None:
        """Wrap `env`; `num_envs` is N below.

        Raises:
          EnvError: `num_envs` is not an integer of at least 1.
        """
        try:
            number = 0 if isinstance(num_envs, bool) else operator.index(num_envs)
        except TypeError:
            number = 0
        if number < 1:
            raise EnvError(f"num_envs must be an integer of at least 1; got {num_envs!r}")
        super().__init__(**facts_of(env))
        self.env, self.num_envs = env, number
        self._first_row: int | jax.Array = 0

    @property
    def shares(self) -> int:
        """How many threads should each step an equal share of the rows: 1 on a device."""
        most = min(getattr(self.env, "host_threads", 0), self.num_envs // ROWS_OF_SHARE)
        return max((n for n in range(1, most + 1) if self.num_envs % n == 0), default=1)

    def share(self, number: int) -> "BatchEnv":
        """Return the first of `number` equal shares of rows, with its share of the threads."""
        env: Any = self.env  # one with threads, or `shares` is 1
        threads = max(1, env.host_threads // number)
        return BatchEnv(env.with_threads(threads), self.num_envs // number)

    def at_row(self, first: int | jax.Array) -> "BatchEnv":
        """Return the same number of rows from row `first` [] on; it may be traced."""
        moved = copy.copy(self)
        moved._first_row = first
        return moved

    def reset(self, key: jax.Array) -> State:
        """Return N fresh episodes, [N] in every field. Row i depends on (key, i) alone."""
        # Unlike splitting, folding in the row's number gives the same row for every N.
        rows = self._first_row + jnp.arange(self.num_envs)
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, rows)
        return jax.vmap(self.env.reset)(keys)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the scripted recovery's action [N, action_size], not clipped, at `obs` [N, D]."""
        return jax.vmap(self.env.recovery)(obs)

    def step(self, state: State, action: jax.Array, key: jax.Array) -> tuple[State, State]:
        """Step every row, then restart the finished ones.

        Args:
          state: [N] where the rows are.
          action: [N, action_size].
          key: for the restarts.

        Returns:
          next_state: [N] where to act next; finished rows hold a new episode.
          final_state: [N] the outcome of the step, before any restart.
        """
        final_state = self._step_rows(state, action)
        fresh = self.reset(key)

        def restart(new: jax.Array, old: jax.Array) -> jax.Array:
            done = final_state.done.reshape((-1,) + (1,) * (old.ndim - 1))
            return jnp.where(done, new, old)

        return jax.tree.map(restart, fresh, final_state), final_state

    def _step_rows(self, state: State, action: jax.Array) -> State:
        rows, mesh = jax.vmap(self.env.step), jax.sharding.get_abstract_mesh()
        if ROWS not in mesh.axis_names:
            return rows(state, action)
        even = self.num_envs % mesh.shape[ROWS] == 0
        spec = PartitionSpec(ROWS) if even else PartitionSpec()
        apart = jax.shard_map(rows, in_specs=spec, out_specs=spec, check_vma=False)
        return apart(state, action)
