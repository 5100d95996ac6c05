"""MPPI: a recovery planned with the world model instead of learnt from demonstrations.

Model predictive path integral control (Williams et al. 2017), as in TD-MPC (Hansen et al. 2022).
It samples action sequences around a mean, values them with the world model, and moves mean and
spread to the best ones.

    V(a_0..a_{H-1}) = sum_{i<H} gamma^i (r_i - w p_i) + gamma^H Q(z_H, prior(z_H))
    weight_k = exp(temperature (V_k - V_max)) over the elites, normalised

r and Q are the model's scaled reward and value. p_i = sigmoid F(z_i, a_i) is the gate's failure
probability. The paper names the planner but not its objective; the penalty w p is our choice.
"""

from collections.abc import Callable
from typing import Any

import chex
import jax
import jax.numpy as jnp

from farl_jax.agent import Agent
from farl_jax.config import MPPIConfig
from farl_jax.safety.gate import Recovery
from farl_jax.types import Params
from farl_jax.world_model.latent import LatentModel, two_hot_mean

STREAM = 0x4D505049
"""Folded into the controller's key, so that planning does not change the task policy's noise."""


def imagined_value(
    model: LatentModel,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    failure_weight: float,
) -> jax.Array:
    """V of S action sequences: normalised obs [D], actions [H, S, A] -> [S].

    The model's own discount and bins apply.
    """
    chex.assert_rank([obs, actions], [1, 3])
    call = lambda name, *args: model.apply(params, *args, method=name)
    world = model.config
    mean = lambda logits: two_hot_mean(logits, world.bin_limit)

    def step(carry: tuple[jax.Array, jax.Array], action: jax.Array):
        z, discount = carry
        failing = jax.nn.sigmoid(call("failure", z, action))
        gain = mean(call("reward", z, action)) - failure_weight * failing
        return (call("next", z, action), world.discount * discount), discount * gain

    start = call("encode", obs)
    start = jnp.broadcast_to(start, (actions.shape[1], *start.shape))
    (z, discount), gains = jax.lax.scan(step, (start, jnp.ones(())), actions)
    return gains.sum(0) + discount * mean(call("q", z, call("prior", z))).mean(0)


def refine(
    actions: jax.Array, values: jax.Array, config: MPPIConfig
) -> tuple[jax.Array, jax.Array]:
    """(mean, std) of the weighted elites, [H, A] each, from actions [H, S, A], values [S].

    NaN counts as the lowest value.
    """
    chex.assert_rank([actions, values], [3, 1])
    chex.assert_axis_dimension(actions, 1, len(values))
    values = jnp.nan_to_num(values, nan=jnp.finfo(values.dtype).min)
    values, best = jax.lax.top_k(values, config.elites)
    weight = jax.nn.softmax(config.temperature * (values - values[0]))
    elites = actions[:, best]
    mean = jnp.einsum("k,hka->ha", weight, elites)
    spread = jnp.einsum("k,hka->ha", weight, (elites - mean[:, None]) ** 2)
    return mean, jnp.clip(jnp.sqrt(spread), config.min_std, config.max_std)


def plan(
    value_of: Callable[[jax.Array], jax.Array],
    mean: jax.Array,
    noise: jax.Array,
    config: MPPIConfig,
) -> jax.Array:
    """The mean action sequence [H, A] after all iterations.

    Args:
        value_of: actions [H, S, A] -> values [S].
        mean: [H, A] initial mean. Every iteration's mean is its first candidate.
        noise: [I, H, S, A] standard normal.
        config: elites, temperature and bounds of the standard deviation.
    """
    chex.assert_rank(mean, 2)
    chex.assert_shape(noise, (None, mean.shape[0], None, mean.shape[1]))

    def improve(carry: tuple[jax.Array, jax.Array], noise: jax.Array):
        mean, std = carry
        actions = mean[:, None] + std[:, None] * noise.at[:, 0].set(0.0)
        actions = jnp.clip(actions, -1.0, 1.0)
        return refine(actions, value_of(actions), config), None

    start = mean, jnp.full_like(mean, config.max_std)
    return jax.lax.scan(improve, start, noise)[0][0]


def plan_where(
    needed: jax.Array,
    plan_rows: Callable[[jax.Array], jax.Array],
    plans: jax.Array,
    slots: int,
) -> jax.Array:
    """`plans` [N, H, A] with new plans in the rows where `needed` [N] bool is true.

    `plan_rows(rows [slots] i32) -> [slots, H, A]` makes them in ceil(needed rows / slots) passes.
    The unused slots of the last pass are computed and dropped.
    """
    chex.assert_rank([needed, plans], [1, 3])
    chex.assert_equal_shape_prefix([needed, plans], 1)
    size = needed.shape[0]
    order = jnp.argsort(~needed, stable=True)
    order = jnp.pad(order, (0, -size % slots))

    def one_pass(carry: tuple[jax.Array, jax.Array]):
        first, plans = carry
        rows = jax.lax.dynamic_slice(order, (first,), (slots,))
        real = first + jnp.arange(slots) < needed.sum()
        place = jnp.where(real, rows, size)  # out of range: dropped
        return first + slots, plans.at[place].set(plan_rows(rows), mode="drop")

    more = lambda carry: carry[0] < needed.sum()
    return jax.lax.while_loop(more, one_pass, (jnp.zeros((), order.dtype), plans))[1]


def start_plans(config: MPPIConfig, num_envs: int, action_size: int) -> jax.Array:
    """Zero plans [N, H, A] before the first step."""
    return jnp.zeros((num_envs, config.horizon, action_size))


def mppi_recovery(model: LatentModel, learnt: Agent, config: MPPIConfig) -> Recovery:
    """Recovery by the first action of a plan. Plans are made only where recovery acts.

    The initial mean is zero where a recovery begins, else its last plan shifted by one step. All
    environments share a step's noise, so no plan depends on the other environments.
    """

    def recovery(plans: jax.Array, obs: jax.Array, recovering: jax.Array, key: jax.Array) -> Any:
        start = jnp.where((recovering > 1)[:, None, None], plans, 0.0)
        shape = (config.iterations, config.horizon, config.samples, start.shape[-1])
        key_noise = jax.random.fold_in(key, STREAM)

        def plan_row(obs: jax.Array, mean: jax.Array, noise: jax.Array) -> jax.Array:
            value_of = lambda actions: imagined_value(
                model,
                learnt.world_model,
                obs,
                actions,
                config.failure_weight,
            )
            return plan(value_of, mean, noise, config)

        def plan_rows(rows: jax.Array) -> jax.Array:
            noise = jax.random.normal(key_noise, shape)
            return jax.vmap(plan_row, in_axes=(0, 0, None))(obs[rows], start[rows], noise)

        plans = plan_where(recovering > 0, plan_rows, start, config.slots)
        following = jnp.concatenate([plans[:, 1:], jnp.zeros_like(plans[:, :1])], axis=1)
        return following, plans[:, 0]

    return recovery
