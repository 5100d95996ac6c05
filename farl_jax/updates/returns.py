"""Returns and advantages over [T, N] arrays."""

import chex
import jax
import jax.numpy as jnp


def generalized_advantage(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    discount: float,
    trace: float,
) -> jax.Array:
    """GAE(lambda), Schulman et al. 2016. All arguments [T, N].

    delta_t = r_t + gamma (1 - terminated_t) V(s'_t) - V(s_t)
    A_t     = delta_t + gamma lambda (1 - done_t) A_{t+1}

    `next_value` is V of the true next observation. A time limit bootstraps, a success does not, and
    the next episode never enters.
    """
    chex.assert_rank(reward, 2)
    chex.assert_equal_shape([reward, value, next_value, terminated, truncated])
    delta = reward + discount * jnp.where(terminated, 0.0, next_value) - value
    carry_on = jnp.where(terminated | truncated, 0.0, discount * trace)

    def backward(following: jax.Array, step: tuple[jax.Array, jax.Array]):
        advantage = step[0] + step[1] * following
        return advantage, advantage

    _, advantage = jax.lax.scan(backward, jnp.zeros_like(delta[0]), (delta, carry_on), reverse=True)
    return advantage
