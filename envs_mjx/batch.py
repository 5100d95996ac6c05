"""Many environments at once; each restarts as soon as its episode ends."""

import operator

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from envs_mjx.core import Env, EnvFacts, State, facts_of
from envs_mjx.errors import EnvError

ROWS = "envs"
"""Axis of a mesh (`jax.set_mesh`) along which devices share the rows."""


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

    def reset(self, key: jax.Array) -> State:
        """Return N fresh episodes, [N] in every field. Row i depends on (key, i) alone."""
        # Unlike splitting, folding in the row's number gives the same row for every N.
        keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(self.num_envs))
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
