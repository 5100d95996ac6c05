"""What a success is worth to a learner: known values, and no reason to wait beside the goal."""

import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.data.rewards import VALUE, learner_reward, reward_scale, rewarded
from farl_jax.types import Normalizer
from farl_jax.updates.returns import generalized_advantage

DISCOUNT = 0.99
SCALED = Normalizer(jnp.zeros(1), jnp.ones(1), 0.5)
PAID = 0.5 * np.array([1000.0, -5.0, 2.0, 3.0])


def test_a_success_pays_for_ever_whatever_the_step():
    reward = jnp.array([3.0, 10.0 + 10.0 * 249, 10.0, 9.5])
    succeeded = jnp.array([False, True, True, False])
    got = learner_reward(reward, succeeded, 10.0, DISCOUNT)
    np.testing.assert_allclose(got, [3.0, 1000.0, 1000.0, 9.5], rtol=1e-5)
    stays = sum(10.0 * DISCOUNT**k for k in range(5000))
    np.testing.assert_allclose(got[1], stays, rtol=1e-5)


def test_a_failure_that_ends_an_episode_pays_what_the_environment_says():
    """Steps of three ends: by success, by failure, by time; and a success that does not end."""
    data = {
        "reward": np.float32([1.0, -5.0, 2.0, 3.0]),
        "terminated": np.array([True, True, False, False]),
        "success": np.array([True, False, False, True]),
    }
    np.testing.assert_allclose(rewarded(data, SCALED, 10.0, DISCOUNT), PAID, rtol=1e-5)
    older = {name: data[name] for name in ("reward", "terminated")}
    older["terminated"] = data["terminated"] & data["success"]  # only a success ended an episode
    np.testing.assert_allclose(rewarded(older, SCALED, 10.0, DISCOUNT), PAID, rtol=1e-5)


def test_rewards_without_a_known_meaning_of_success_stay():
    data = {"reward": np.float32([1.0, 7.0]), "terminated": np.array([True, True])}
    data["success"] = data["terminated"]
    np.testing.assert_array_equal(rewarded(data, SCALED, None, DISCOUNT), 0.5 * data["reward"])


def test_the_largest_value_is_ten_by_success_or_by_the_data():
    """Two episodes without a meaning of success: -1 -1 -1, and 2 then -8 from behind."""
    data = {"reward": np.float32([-1, -1, -1, 2, -8]), "episode": np.array([4, 4, 4, 7, 7])}
    assert np.float32(reward_scale(data, 10.0, 0.99)) == np.float32(0.01)  # FailureBench
    assert reward_scale(data, -1.0, 0.9) == pytest.approx(1.0)
    assert reward_scale(data, None, 0.5) == pytest.approx(VALUE / 8.0)  # and not of 2 - 4
    tail = {name: rows[:3] for name, rows in data.items()}
    assert reward_scale(tail, None, 0.5) == pytest.approx(VALUE / 1.75)
    assert reward_scale({"reward": np.zeros(2), "episode": np.zeros(2)}, None, 0.9) == 1.0


@pytest.mark.parametrize("wait", [1, 30, 79])
def test_waiting_beside_the_goal_is_worth_less_than_success_now(wait):
    """9.9 a step for `wait` steps, then success, or a time-out bootstrapped with 9.9 for ever.

    By the environment's own reward, 10 for each of 80 steps left, both would be worth more.
    """
    length = wait + 1
    hover, no = jnp.full((length, 1), 9.9), jnp.zeros((length, 1), bool)
    last, forever = no.at[-1].set(True), 9.9 / (1 - DISCOUNT)

    def value(reward, terminated, truncated):
        zero = jnp.zeros((length, 1))
        after = zero.at[-1].set(forever)
        ends = terminated, truncated
        return float(
            generalized_advantage(reward, zero, after, *ends, discount=DISCOUNT, trace=1.0)[0, 0]
        )

    own = lambda reward, terminated: learner_reward(reward, terminated, 10.0, DISCOUNT)
    now = float(own(jnp.full((1, 1), 10.0 + 790.0), jnp.ones((1, 1), bool))[0, 0])
    late = hover.at[-1].set(10.0 * (80 - wait))
    assert now > value(own(late, last), last, no) and now > value(own(hover, no), no, last)
    assert value(hover, no, last) > 800.0
