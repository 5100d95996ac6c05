"""Controllers of the loop that steps environments."""

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.data.rollout import handing_over, plain_decision, unroll
from tests.toy import make_toy


def always(action):
    """A controller that repeats one action, with a log density that names it."""

    def act(memory, state, key):
        assert memory is None
        decision = plain_decision(jnp.full((*state.obs.shape[:-1], 1), action))
        return memory, decision.replace(log_prob=decision.action[..., 0])

    return act


def test_control_is_handed_over_exactly_at_its_step():
    """After 0, 1, 3 steps, and never within 6. Whole decisions change hands, not actions alone."""
    env, key = make_toy(4), jax.random.key(0)
    left = jnp.array([0, 1, 3, 6])
    controller = handing_over(always(0.5), always(-1.0))
    roll = jax.jit(lambda left: unroll(env, controller, left, env.reset(key), key, 6))
    memory, _, steps, _ = roll(left)
    expected = np.where(np.arange(6)[:, None] < np.array([0, 1, 3, 6]), 0.5, -1.0)
    np.testing.assert_array_equal(steps.decision.action[..., 0], expected)
    np.testing.assert_array_equal(steps.decision.task_action[..., 0], expected)
    np.testing.assert_array_equal(steps.decision.log_prob, expected)
    np.testing.assert_array_equal(memory, [-6, -5, -3, 0])
