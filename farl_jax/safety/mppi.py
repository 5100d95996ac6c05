"""MPPI: a recovery planned through the world model instead of learnt from demonstrations.

Model predictive path integral control (Williams et al. 2017) as TD-MPC plans (Hansen et al. 2022):
sample action sequences around a mean, judge them in imagination, move mean and spread to the best.

    V(a_0..a_{H-1}) = sum_{i<H} gamma^i (r_i - w p_i) + gamma^H Q(z_H, prior(z_H))
    weight_k = exp(temperature (V_k - V_max)) over the elites, normalised

r, Q: the model's scaled reward and value; p_i = sigmoid F(z_i, a_i), the gate's own probability.
The paper names the planner but not its objective: the penalty w p is ours.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from farl_jax.agent import Agent
from farl_jax.config import MPPIConfig
from farl_jax.safety.gate import Recovery
from farl_jax.types import Params
from farl_jax.world_model.latent import LatentModel, two_hot_mean

STREAM = 0x4D505049
"""Folded into the controller's key, so that planning leaves the task policy's noise as it is."""


def imagined_value(
    model: LatentModel,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
    failure_weight: float,
) -> jax.Array:
    """V of S action sequences from one observation: obs [D] normalised, actions [H, S, A] -> [S].

    Discount and bins are those that the model's values were learnt with.
    """
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
    """(mean, std) of the weighted elites, [H, A] each, of actions [H, S, A] worth values [S].

    A value without a number is the worst.
    """
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
        mean: [H, A] to start from; itself the first candidate of every iteration.
        noise: [I, H, S, A] standard normal.
        config: numbers.
    """

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
    """`plans` [N, H, A] with the rows that are `needed` [N] bool replaced by `plan_rows` of them.

    Rows go through `plan_rows(rows [slots] i32) -> [slots, H, A]` in as many passes as there are
    full or begun blocks of them: none at all where none is needed. What a pass has to spare is
    computed for nothing and dropped.
    """
    size = needed.shape[0]
    order = jnp.argsort(~needed, stable=True)
    order = jnp.pad(order, (0, -size % slots))

    def one_pass(carry: tuple[jax.Array, jax.Array]):
        first, plans = carry
        rows = jax.lax.dynamic_slice(order, (first,), (slots,))
        real = first + jnp.arange(slots) < needed.sum()
        place = jnp.where(real, rows, size)  # outside: dropped
        return first + slots, plans.at[place].set(plan_rows(rows), mode="drop")

    more = lambda carry: carry[0] < needed.sum()
    return jax.lax.while_loop(more, one_pass, (jnp.zeros((), order.dtype), plans))[1]


def start_plans(config: MPPIConfig, num_envs: int, action_size: int) -> jax.Array:
    """Nothing planned yet, [N, H, A]."""
    return jnp.zeros((num_envs, config.horizon, action_size))


def mppi_recovery(model: LatentModel, learnt: Agent, config: MPPIConfig) -> Recovery:
    """Recovery by the first action of a plan, made only where recovery acts.

    A recovery that goes on starts from its last plan, one step on; one that begins from no
    movement. All environments of a step share the noise, so a row's plan depends on nothing else.
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
