"""IQL on probes of known value: terminals end, time-outs bootstrap, expectiles by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import IQLConfig
from farl_jax.data.dataset import DeviceData, pad_to_power_of_two
from farl_jax.nn.networks import DoubleCritic, Value
from farl_jax.offline import iql

GAMMA, OMEGA, STATES = 0.8, 0.7, 6
VALUE, CRITIC = Value(width=32, depth=1), DoubleCritic(width=32, depth=1)

# (state, action, reward, next state, terminated); the state after a terminal step is worth 5
PROBES = [
    (0, 0.0, 2.0, 1, True),  # constant reward, then the end
    (1, 0.0, 1.0, 1, False),  # cut by the clock again and again: r / (1 - gamma)
    (2, 0.0, 1.0, 3, False),  # a chain of three
    (3, 0.0, 0.0, 4, False),
    (4, 0.0, -3.0, 1, True),
    (5, -1.0, 0.0, 1, True),  # two actions, one pays
    (5, 1.0, 1.0, 1, True),
]
KNOWN = [2.0, 1 / (1 - GAMMA), 1.0 - 3 * GAMMA**2, -3 * GAMMA, -3.0, OMEGA]


@pytest.fixture(scope="module")
def critics():
    eye = np.eye(STATES, dtype=np.float32)
    state, action, reward, following, terminated = map(np.array, zip(*PROBES, strict=True))
    fields = {
        "obs": eye[state],
        "action": action[:, None].astype(np.float32),
        "reward": reward.astype(np.float32),
        "next_obs": eye[following],
        "terminated": terminated,
    }
    padded = {k: jnp.asarray(pad_to_power_of_two(v)) for k, v in fields.items()}
    data = DeviceData(fields=padded, size=jnp.asarray(len(PROBES), jnp.int32))
    config = IQLConfig(
        steps=3000, batch=64, learning_rate=3e-3, expectile=OMEGA, discount=GAMMA, target_rate=0.05
    )
    fitted, metrics = iql.make_fit(VALUE, CRITIC, config, (STATES, 1))(jax.random.key(0), data)
    return fitted, metrics, fields


def test_values_of_the_probe_problems(critics):
    value = VALUE.apply(critics[0].value, jnp.eye(STATES))
    np.testing.assert_allclose(value, KNOWN, atol=0.12)


def test_both_critics_know_the_return_of_each_action(critics):
    fitted, _, fields = critics
    q = CRITIC.apply(fitted.critic, fields["obs"], fields["action"])
    np.testing.assert_allclose(q, np.broadcast_to([*KNOWN[:5], 0.0, 1.0], (2, 7)), atol=0.15)


def test_advantage_prefers_the_paying_action_and_is_min_q_minus_v(critics):
    fitted, _, fields = critics
    gain = iql.advantage(VALUE, CRITIC, fitted, fields["obs"], fields["action"])
    np.testing.assert_allclose(gain[5:], [-OMEGA, 1 - OMEGA], atol=0.15)

    class Fixed:
        def __init__(self, answer):
            self.answer = jnp.asarray(answer)

        def apply(self, params, *inputs):
            return self.answer

    given = fitted, jnp.zeros((2, STATES)), jnp.zeros((2, 1))
    got = iql.advantage(Fixed([1.0, 2.0]), Fixed([[3.0, 0.0], [2.5, 7.0]]), *given)
    np.testing.assert_array_equal(got, [1.5, -2.0])


def test_metrics_are_finite_averages(critics):
    assert set(critics[1]) == {"value_loss", "q_loss", "value"}
    assert all(np.isfinite(x) and x.shape == () for x in critics[1].values())


def test_expectile_loss_and_gradient_by_hand(no_rank_promotion):
    loss = lambda u: iql.expectile_loss(u, 0.7)
    np.testing.assert_allclose(loss(jnp.array([2.0, -2.0, 0.0])), [2.8, 1.2, 0.0], rtol=1e-6)
    slope = lambda q, v: jax.grad(lambda v: loss(q - v))(v)
    np.testing.assert_allclose(slope(1.0, 0.0), -1.4, rtol=1e-6)  # Q above V lifts V ...
    np.testing.assert_allclose(slope(0.0, 1.0), 0.6, rtol=1e-6)  # ... more than Q below sinks it


@pytest.mark.parametrize("expectile", [0.5, 0.7, 0.9])
def test_minimiser_over_two_points(expectile):
    """Q is 0 or 1 equally often: V = omega; one half is the mean."""
    v = np.linspace(0, 1, 1001)
    points = jnp.array([0.0, 1.0])
    loss = np.asarray(iql.expectile_loss(points[:, None] - v[None], expectile)).mean(0)
    assert abs(v[loss.argmin()] - expectile) < 2e-3
