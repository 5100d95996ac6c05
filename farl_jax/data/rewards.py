"""What a learner receives for a step; scores and reported returns keep the environment's reward."""

import chex
import jax
import jax.numpy as jnp


def learner_reward(
    reward: jax.Array, terminated: jax.Array, success_reward: float, discount: float
) -> jax.Array:
    """The environment's reward, but a success pays the value of staying successful for ever.

        r' = success_reward / (1 - discount)  where a success ends the episode,  r  elsewhere

    One rule for every task and every step. The environment pays success_reward for each step left,
    and a time-out is bootstrapped: a late success would be worth less than staying beside the goal.

    Args:
        reward: the environment's, [...].
        terminated: [...] bool.
        success_reward: of one step spent in success.
        discount: the learner's.
    """
    chex.assert_equal_shape([reward, terminated])
    return jnp.where(terminated, success_reward / (1.0 - discount), reward)
