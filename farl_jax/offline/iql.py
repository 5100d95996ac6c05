"""Implicit Q-learning critics (Kostrikov et al. 2022): value and double Q from data alone."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from farl_jax.config import IQLConfig
from farl_jax.data.dataset import DeviceData
from farl_jax.nn.networks import DoubleCritic, Value
from farl_jax.nn.training import Learner, polyak, scan_updates
from farl_jax.types import Params

FIELDS = ("obs", "action", "reward", "next_obs", "terminated")


@struct.dataclass
class Critics:
    """V(s) and the two Q(s, a)."""

    value: Params
    critic: Params


def expectile_loss(difference: jax.Array, expectile: float) -> jax.Array:
    """|omega - 1{u < 0}| u^2 elementwise, u = Q - V. omega > 1/2 moves V to the upper part of Q."""
    return jnp.where(difference < 0, 1.0 - expectile, expectile) * difference**2


def advantage(
    value_net: Value, critic_net: DoubleCritic, critics: Critics, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """min(Q1, Q2)(s, a) - V(s): [..., D], [..., A] -> [...]."""
    chex.assert_equal_shape_prefix([obs, action], obs.ndim - 1)
    q = critic_net.apply(critics.critic, obs, action).min(axis=0)
    return q - value_net.apply(critics.value, obs)


def make_fit(
    value_net: Value, critic_net: DoubleCritic, config: IQLConfig, sizes: tuple[int, int]
) -> Callable[[jax.Array, DeviceData], tuple[Critics, dict[str, jax.Array]]]:
    """Build `fit(key, data) -> (Critics, metrics)`.

    Data fields (FIELDS): obs and next_obs normalised [P, D], action [P, A], reward [P] already
    scaled, terminated [P]. Time-outs bootstrap, terminal steps do not:

    L_V = E |omega - 1{u<0}| u^2,  u = min Q_target(s, a) - V(s)
    L_Q = E sum_k (Q_k(s, a) - r - gamma (1 - terminated) V(s'))^2

    Args:
        value_net, critic_net: networks.
        config: numbers.
        sizes: (observation size D, action size A).
    """
    optimizer = optax.adam(config.learning_rate)

    def update(state: tuple[Learner, Learner, Params], key: jax.Array, data: DeviceData):
        value, critic, target = state
        batch = data.sample(key, config.batch)
        obs, action = batch["obs"], batch["action"]
        target_q = critic_net.apply(target, obs, action).min(axis=0)

        def value_loss(params: Params):
            v = value_net.apply(params, obs)
            return expectile_loss(target_q - v, config.expectile).mean(), v.mean()

        (loss_v, mean_v), gradient = jax.value_and_grad(value_loss, has_aux=True)(value.params)
        value = value.apply_gradient(gradient, optimizer)
        next_v = value_net.apply(value.params, batch["next_obs"])
        backup = batch["reward"] + config.discount * jnp.where(batch["terminated"], 0.0, next_v)

        def critic_loss(params: Params):
            return ((critic_net.apply(params, obs, action) - backup) ** 2).sum(axis=0).mean()

        loss_q, gradient = jax.value_and_grad(critic_loss)(critic.params)
        critic = critic.apply_gradient(gradient, optimizer)
        target = polyak(target, critic.params, config.target_rate)
        return (value, critic, target), {"value_loss": loss_v, "q_loss": loss_q, "value": mean_v}

    def fit(key: jax.Array, data: DeviceData):
        key_value, key_critic, key_fit = jax.random.split(key, 3)
        obs, action = jnp.zeros((1, sizes[0])), jnp.zeros((1, sizes[1]))
        critic = critic_net.init(key_critic, obs, action)
        state = (
            Learner.create(value_net.init(key_value, obs), optimizer),
            Learner.create(critic, optimizer),
            critic,
        )
        (value, critic, _), metrics = scan_updates(
            lambda s, k: update(s, k, data), state, key_fit, config.steps
        )
        return Critics(value=value.params, critic=critic.params), metrics

    return jax.jit(fit)
