"""Many environments at once, each restarted as soon as its episode ends."""

import operator

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from envs_mjx.core import Env, State
from envs_mjx.errors import EnvError

ROWS = "envs"
"""Axis of a mesh (`jax.set_mesh`) along which rows are shared out among devices."""


class BatchEnv:
    """`num_envs` copies of one environment with automatic resets.

    Pure: jit it, scan over it, or vmap it over a leading axis of seeds. Where there is a mesh with
    an axis ROWS, each device steps its own share of the rows, on any backend; a number of rows that
    cannot be shared out is stepped everywhere.
    """

    def __init__(self, env: Env, num_envs: int) -> None:
        """Wrap `env`; `num_envs` is N below.

        Raises:
          EnvError: `num_envs` is no whole number of at least 1.
        """
        try:
            number = 0 if isinstance(num_envs, bool) else operator.index(num_envs)
        except TypeError:
            number = 0
        if number < 1:
            raise EnvError(f"num_envs must be a whole number of at least 1; got {num_envs!r}")
        self.env = env
        self.num_envs = number
        self.name = env.name
        self.backend = env.backend
        self.observation_size = env.observation_size
        self.action_size = env.action_size
        self.episode_limit = env.episode_limit
        self.random_return = env.random_return
        self.expert_return = env.expert_return
        self.success_reward = env.success_reward
        self.danger_margin = env.danger_margin
        self.danger_lead = env.danger_lead
        self.safe_margin = env.safe_margin
        self.compiler_options = env.compiler_options

    def reset(self, key: jax.Array) -> State:
        """Return N fresh episodes, [N] in every field. Row i depends on (key, i) alone."""
        # Folding in the row's number, unlike splitting, makes a row the same for every N.
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
          key: consumed by the restarts.

        Returns:
          next_state: [N] where to act next; rows that finished hold a fresh episode.
          final_state: [N] what the step itself led to: true observation, rewards and flags.
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
