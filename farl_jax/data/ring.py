"""A ring buffer of the latest windows of a run, on the device."""

import chex
import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Ring:
    """The latest R windows of L steps."""

    fields: dict[str, jax.Array]  # name -> [R, L, ...]
    stored: jax.Array  # [] i32 windows ever stored


def create_ring(size: int, length: int, observation_size: int, action_size: int) -> Ring:
    """Create an empty ring."""
    wide = {"obs": observation_size, "next_obs": observation_size, "action": action_size}
    fields = {k: jnp.zeros((size, length, n)) for k, n in wide.items()}
    fields["reward"] = jnp.zeros((size, length))
    fields |= {k: jnp.zeros((size, length), bool) for k in ("failure", "terminated")}
    return Ring(fields, jnp.zeros((), jnp.int32))


def store(
    ring: Ring, steps: dict[str, jax.Array], eligible: jax.Array, key: jax.Array, most: int
) -> Ring:
    """Add up to `most` eligible windows of a rollout, drawn at random without replacement.

    Args:
        ring: of windows of L steps.
        steps: name -> [T, N, ...].
        eligible: [T - L + 1, N] bool, by the window's first step.
        key: consumed.
        most: static.
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
    return Ring(fields, ring.stored + jnp.sum(drawn, dtype=jnp.int32))


def draw(ring: Ring, key: jax.Array, batch: int) -> dict[str, jax.Array]:
    """Sample `batch` windows with replacement, time first: name -> [L, batch, ...]."""
    size = ring.fields["reward"].shape[0]
    row = jax.random.randint(key, (batch,), 0, jnp.clip(ring.stored, 1, size))
    return {name: jnp.moveaxis(kept[row], 0, 1) for name, kept in ring.fields.items()}
