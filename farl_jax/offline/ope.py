"""Off-policy evaluation (Uni-O4): roll out a policy in a learnt ensemble, and score it with Q."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from farl_jax.config import OfflinePPOConfig
from farl_jax.data.dataset import DeviceData
from farl_jax.nn.networks import TransitionModel
from farl_jax.nn.training import Learner, scan_updates
from farl_jax.types import Params


def make_fit_ensemble(
    model: TransitionModel, config: OfflinePPOConfig, sizes: tuple[int, int]
) -> Callable[[jax.Array, DeviceData], tuple[Params, jax.Array]]:
    """Build `fit(key, data) -> (params [E, ...], mean squared error)`.

    Data fields: obs, next_obs (normalised) [P, D], action [P, A]. Each member has its own batches.
    """
    optimizer = optax.adam(config.model_learning_rate)

    def fit_member(key: jax.Array, data: DeviceData):
        key_init, key_fit = jax.random.split(key)
        params = model.init(key_init, jnp.zeros((1, sizes[0])), jnp.zeros((1, sizes[1])))

        def update(learner: Learner, key_batch: jax.Array):
            batch = data.sample(key_batch, config.model_batch)

            def loss(params: Params) -> jax.Array:
                predicted = model.apply(params, batch["obs"], batch["action"])
                return ((predicted - batch["next_obs"]) ** 2).mean()

            value, gradient = jax.value_and_grad(loss)(learner.params)
            return learner.apply_gradient(gradient, optimizer), value

        learner, error = scan_updates(
            update, Learner.create(params, optimizer), key_fit, config.model_steps
        )
        return learner.params, error

    def fit(key: jax.Array, data: DeviceData):
        keys = jax.random.split(key, config.ensemble)
        params, error = jax.vmap(fit_member, in_axes=(0, None))(keys, data)
        return params, error.mean()

    return jax.jit(fit)


def evaluate_policy(
    model: TransitionModel,
    ensemble: Params,
    action_of: Callable[[jax.Array], jax.Array],
    q_of: Callable[[jax.Array, jax.Array], jax.Array],
    start: jax.Array,
    length: int,
) -> jax.Array:
    """Mean min-Q along imagined trajectories, per start state: start [B, D] -> [B].

    The next state is the ensemble's mean prediction. Scores of two policies are paired, because
    starts are equal and nothing is sampled.
    """
    chex.assert_rank(start, 2)

    def step(obs: jax.Array, _: None):
        action = action_of(obs)
        members = jax.vmap(model.apply, in_axes=(0, None, None))(ensemble, obs, action)
        return members.mean(axis=0), q_of(obs, action)

    _, scores = jax.lax.scan(step, start, None, length)
    return scores.mean(axis=0)


def is_better(candidate: jax.Array, incumbent: jax.Array) -> jax.Array:
    """Whether the paired gain [B] exceeds one standard error of its mean: [] bool."""
    chex.assert_rank(candidate, 1)
    chex.assert_equal_shape([candidate, incumbent])
    gain = candidate - incumbent
    standard_error = gain.std(ddof=1) / jnp.sqrt(gain.shape[0])
    return gain.mean() > standard_error
