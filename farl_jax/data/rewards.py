"""The reward that a learner receives. Scores and reported returns keep the environment's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.data.dataset import Dataset
from farl_jax.types import Normalizer


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


def rewarded(
    data: Dataset, normalizer: Normalizer, success_reward: float | None, discount: float
) -> np.ndarray:
    """`learner_reward` of a dataset's steps, normalised, [M].

    Files of older versions do not say which steps succeed. There only a success ended an episode.
    """
    succeeded = data["terminated"] & data.get("success", True)
    reward = learner_reward(data["reward"], succeeded, success_reward, discount)
    return np.asarray(reward) * np.float32(normalizer.reward)


VALUE = 10.0
"""Size of values that the learners' step sizes and the world model's bins suit."""


def reward_scale(data: Dataset, success_reward: float | None, discount: float) -> float:
    """Factor on rewards that makes the largest |V| about VALUE.

    The largest value is that of staying successful for ever, success_reward / (1 - discount). Where
    success has no such meaning, it is the largest |discounted return| of an episode's rest in
    `data`, steps in time order [M]. Rewards that are all 0 keep the factor 1.
    """
    if success_reward is not None:
        largest = abs(success_reward) / (1.0 - discount)
    else:
        largest, rest, episode = 0.0, 0.0, None
        steps = zip(data["reward"][::-1], data["episode"][::-1], strict=True)
        for reward, number in steps:
            rest = float(reward) + discount * (rest if number == episode else 0.0)
            largest, episode = max(largest, abs(rest)), number
    return VALUE / largest if largest > 0.0 else 1.0
