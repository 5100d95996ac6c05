"""Off-policy evaluation: acceptance and a linear model by hand; the ensemble learns dynamics."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.config import OfflinePPOConfig
from farl_jax.data.dataset import DeviceData
from farl_jax.nn.networks import TransitionModel
from farl_jax.offline import ope


@pytest.mark.parametrize(
    ("gain", "accepted"),
    [
        ([1.0, 1.0, 1.0], True),  # no spread: any gain counts
        ([2.0, 4.0], True),  # mean 3, standard error 1
        ([3.0, -1.0], False),  # mean 1, standard error 2
        ([0.0, 0.0], False),  # nothing gained
        ([-2.0, -4.0], False),
        ([np.nan, 4.0], False),
    ],
)
def test_a_candidate_must_gain_more_than_a_standard_error(gain, accepted, no_rank_promotion):
    incumbent = jnp.arange(len(gain), dtype=jnp.float32)
    assert bool(ope.is_better(incumbent + jnp.array(gain), incumbent)) == accepted


def test_the_gain_is_paired():
    """Starts differ by far more than the policies; a small gain on each of them is still seen."""
    incumbent = jnp.asarray(1e3 * np.random.default_rng(0).normal(size=64), jnp.float32)
    assert ope.is_better(incumbent + 1.0, incumbent)
    assert not ope.is_better(incumbent[::-1] + 1.0, incumbent)


class Linear:
    """next state = k s + a, one k for each member."""

    @staticmethod
    def apply(params, obs, action):
        return params * obs + action


def test_score_of_a_known_linear_model_equals_the_hand_sum():
    """Members k = 0 and 1, policy a = s / 2: the mean prediction keeps s; Q = s + 10 a = 6 s."""
    start = jnp.array([[1.0], [-2.0]])
    q_of = lambda obs, action: (obs + 10 * action)[:, 0]
    score = lambda policy: ope.evaluate_policy(
        Linear, jnp.array([0.0, 1.0]), policy, q_of, start, 3
    )
    np.testing.assert_allclose(score(lambda s: s / 2), [6.0, -12.0], rtol=1e-6)
    # a = s: the mean prediction is 1.5 s, Q = 11 s, so 11 (1 + 1.5 + 2.25) / 3
    np.testing.assert_allclose(score(lambda s: s), 11 * 4.75 / 3 * start[:, 0], rtol=1e-6)


def test_the_ensemble_learns_the_dynamics_with_members_of_its_own():
    rng = np.random.default_rng(0)
    obs, action = rng.normal(size=(1024, 2)), rng.uniform(-1, 1, (1024, 1))
    following = obs + np.concatenate([0.5 * action, 0.3 * obs[:, :1]], 1)
    fields = {"obs": obs, "action": action, "next_obs": following}
    data = DeviceData({k: jnp.asarray(v, jnp.float32) for k, v in fields.items()}, jnp.asarray(768))
    model = TransitionModel(width=32, depth=1)
    config = OfflinePPOConfig(ensemble=2, model_steps=400, model_batch=64, model_learning_rate=5e-3)
    params, mse = ope.make_fit_ensemble(model, config, (2, 1))(jax.random.key(0), data)
    unseen = {k: v[768:] for k, v in data.fields.items()}
    predicted = jax.jit(jax.vmap(model.apply, in_axes=(0, None, None)))(
        params, unseen["obs"], unseen["action"]
    )
    error = ((predicted - unseen["next_obs"]) ** 2).mean(axis=(1, 2))
    standing_still = ((unseen["obs"] - unseen["next_obs"]) ** 2).mean()
    assert (error < 0.02 * standing_still).all()
    assert error.max() < mse < standing_still  # reported: the average over training
    assert np.abs(predicted[0] - predicted[1]).max() > 1e-4
