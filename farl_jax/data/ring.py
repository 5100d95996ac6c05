"""A ring buffer of the latest windows of a run, on the device.

It keeps some of a rollout's windows. Each has a weight, the number of windows that it stands for.
Weights decay with every rollout, so that samples follow the current policy.
"""

import chex
import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Ring:
    """The latest R windows of L steps."""

    fields: dict[str, jax.Array]  # name -> [R, L, ...]
    weight: jax.Array  # [R] eligible windows that each stands for, decayed; 0 in an empty slot
    total: jax.Array  # [] eligible windows ever seen, decayed
    stored: jax.Array  # [] i32 windows ever stored


def create_ring(size: int, length: int, observation_size: int, action_size: int) -> Ring:
    """Create an empty ring."""
    wide = {"obs": observation_size, "next_obs": observation_size, "action": action_size}
    fields = {k: jnp.zeros((size, length, n)) for k, n in wide.items()}
    fields["reward"] = jnp.zeros((size, length))
    fields |= {k: jnp.zeros((size, length), bool) for k in ("failure", "terminated")}
    return Ring(fields, jnp.zeros(size), jnp.zeros(()), jnp.zeros((), jnp.int32))


def store(
    ring: Ring,
    steps: dict[str, jax.Array],
    eligible: jax.Array,
    key: jax.Array,
    most: int,
    memory: int,
) -> Ring:
    """Add up to `most` eligible windows of a rollout, drawn at random without replacement.

    Each gets the weight eligible / added. All older weights are multiplied by 1 - 1 / `memory`.

    Args:
        ring: of windows of L steps.
        steps: name -> [T, N, ...].
        eligible: [T - L + 1, N] bool, by the window's first step.
        key: consumed.
        most: static.
        memory: rollouts, static.
    """
    size, length = ring.fields["reward"].shape
    chex.assert_rank(eligible, 2)
    horizon = eligible.shape[0] + length - 1, eligible.shape[1]
    chex.assert_tree_shape_prefix({name: steps[name] for name in ring.fields}, horizon)
    lot = jnp.where(eligible, jax.random.uniform(key, eligible.shape), -1.0)
    lot, place = jax.lax.top_k(lot.reshape(-1), most)
    drawn = lot >= 0.0
    first, env = jnp.divmod(place, eligible.shape[1])
    time = first[:, None] + jnp.arange(length)
    slot = (ring.stored + jnp.cumsum(drawn) - 1) % size
    slot = jnp.where(drawn, slot, size)  # outside: dropped
    fields = {
        name: kept.at[slot].set(steps[name][time, env[:, None]], mode="drop")
        for name, kept in ring.fields.items()
    }
    added = jnp.sum(drawn, dtype=jnp.int32)
    seen, kept = jnp.sum(eligible), 1.0 - 1.0 / memory
    weight = (kept * ring.weight).at[slot].set(seen / jnp.maximum(added, 1), mode="drop")
    return Ring(fields, weight, kept * ring.total + seen, ring.stored + added)


def draw(ring: Ring, key: jax.Array, batch: int) -> dict[str, jax.Array]:
    """Sample `batch` windows by weight with replacement, time first: name -> [L, batch, ...]."""
    mass = jnp.cumsum(ring.weight)
    row = jnp.searchsorted(mass, jax.random.uniform(key, (batch,)) * mass[-1], side="right")
    row = jnp.minimum(row, jnp.clip(ring.stored, 1, len(mass)) - 1)
    return {name: jnp.moveaxis(kept[row], 0, 1) for name, kept in ring.fields.items()}
