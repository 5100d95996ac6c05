"""The reward that a learner receives. Scores and reported returns keep the environment's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.data.dataset import Dataset


def learner_reward(
    reward: jax.Array, succeeded: jax.Array, success_reward: float | None, discount: float
) -> jax.Array:
    """The environment's reward, but a success pays the value of staying successful for ever.

        r' = success_reward / (1 - discount)  where a success ends the episode,  r  elsewhere

    FailureBench pays `success_reward` for each step that is left, and a time-out is bootstrapped.
    So a late success would be worth less than staying near the goal.

    Args:
        reward: the environment's, [...].
        succeeded: [...] bool, the episode ends here by success. A failure that ends it does not.
        success_reward: reward of one step spent in success; None keeps all rewards.
        discount: the learner's.
    """
    chex.assert_equal_shape([reward, succeeded])
    if success_reward is None:
        return reward
    return jnp.where(succeeded, success_reward / (1.0 - discount), reward)


def rewarded(data: Dataset, success_reward: float | None, discount: float) -> np.ndarray:
    """`learner_reward` of a dataset's steps, [M].

    Files of older versions do not say which steps succeed. There only a success ended an episode.
    """
    succeeded = data["terminated"] & data.get("success", True)
    return np.asarray(learner_reward(data["reward"], succeeded, success_reward, discount))
