"""GAE by hand: bootstrap at time limits, none after success, no leak across episodes."""

import jax.numpy as jnp
import numpy as np

from farl_jax.measure.evaluate import normalized_return
from farl_jax.updates.returns import generalized_advantage

COLUMN = lambda *x: jnp.array(x)[:, None]


def test_gae_by_hand(no_rank_promotion):
    # one environment: two steps, then success, then a new episode cut by time
    reward = COLUMN(1.0, 2.0, 3.0, 4.0)
    value = COLUMN(0.5, 0.25, 1.0, 2.0)
    next_value = COLUMN(0.25, 99.0, 2.0, 8.0)  # 99: value after success must never be seen
    terminated = COLUMN(False, True, False, False)
    truncated = COLUMN(False, False, False, True)
    got = generalized_advantage(
        reward, value, next_value, terminated, truncated, discount=0.5, trace=0.5
    )[:, 0]
    last = 4.0 + 0.5 * 8.0 - 2.0  # time limit: bootstraps with the true next value
    third = (3.0 + 0.5 * 2.0 - 1.0) + 0.25 * last
    second = 2.0 - 0.25  # success: neither bootstrap nor the next episode
    first = (1.0 + 0.5 * 0.25 - 0.5) + 0.25 * second
    np.testing.assert_allclose(got, [first, second, third, last], rtol=1e-6)


def test_rows_are_independent(no_rank_promotion):
    rng = np.random.default_rng(0)
    reward, value, following = (jnp.asarray(rng.normal(size=(6, 2))) for _ in range(3))
    ends = jnp.asarray(rng.random((6, 2)) < 0.3)
    none = jnp.zeros((6, 2), bool)
    run = lambda r, e: generalized_advantage(r, value, following, e, none, discount=0.9, trace=0.8)
    changed = run(reward.at[:, 1].add(5.0), ends.at[:, 1].set(~ends[:, 1]))
    np.testing.assert_array_equal(run(reward, ends)[:, 0], changed[:, 0])
    assert not np.allclose(run(reward, ends)[:, 1], changed[:, 1])


def test_normalized_return_hits_its_references():
    np.testing.assert_allclose(
        normalized_return(jnp.array([14.0, 2082.0, 1048.0]), 14.0, 2082.0), [0, 100, 50]
    )
