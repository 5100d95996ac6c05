"""A rollout of the online phase, and what it adds to the run's state.

On a CPU the simulator's steps and the networks' products are both too small to share two cores
well. So the environments are cut into shares (`BatchEnv.shares`), and each share goes through the
whole rollout in a thread of its own: policy, gate and physics. Nobody waits until the end. A share
gets the random numbers that its rows have in the whole, so numbers differ by rounding at most.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from farl_jax import devices
from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig
from farl_jax.data.rollout import unroll
from farl_jax.methods import Method
from farl_jax.nn.distributions import draw_rows
from farl_jax.online.budget import Budget
from farl_jax.online.side_by_side import SideBySide, possible
from farl_jax.online.state import PER_ENV, OnlineState, current
from farl_jax.safety.behaviour import make_controller
from farl_jax.safety.gate import Gate, GateMemory, acting_share, follow
from farl_jax.types import BatchedEnv, Transition

Rollout = tuple[GateMemory, Any, Transition]
"""(memory [n], State [n] after the last step, steps [T, n]) of n environments."""


def make_collect(
    env: BatchedEnv, nets: Networks, config: FarlConfig, method: Method
) -> Callable[[OnlineState, Agent, Gate], tuple[OnlineState, Transition]]:
    """Build `collect(state, frozen, gate) -> (state, steps [T, N])`; the state is donated."""
    whole, options = _make_roll(env, nets, config, method), dict(env.compiler_options)
    finish = _make_finish(config, Budget(config.online, env.num_envs))
    at_once = jax.jit(
        lambda state, frozen, gate: finish(state, gate, [whole(state, frozen, gate, 0)]),
        compiler_options=options,
        donate_argnums=0,
    )
    shares = 1 if method.recovery == "mppi" else getattr(env, "shares", 1)  # its plans draw by row
    if shares == 1:
        return at_once
    roll = _make_roll(env.share(shares), nets, config, method, of=env.num_envs)
    roll, join = jax.jit(roll, compiler_options=options), jax.jit(finish, donate_argnums=0)
    threads = SideBySide(shares)

    def collect(state: OnlineState, frozen: Agent, gate: Gate):
        if not possible(state.key):
            return at_once(state, frozen, gate)  # one program for all devices, or all seeds
        calls = [partial(roll, state, frozen, gate, jnp.asarray(i)) for i in range(shares)]
        return join(state, gate, threads.run(calls))

    return collect


def _make_roll(
    env: BatchedEnv,
    nets: Networks,
    config: FarlConfig,
    method: Method,
    of: int | None = None,
) -> Callable[..., Rollout]:
    """Build `roll(state, frozen, gate, share) -> Rollout` of the state's `share`-th rows.

    `of` is the number of rows of all shares; None: `env` has them all.
    """
    share = config.safety.control_share
    controller_of = make_controller(nets, config, method, explore=True, control_share=share)

    def roll(state: OnlineState, frozen: Agent, gate: Gate, share: jax.Array) -> Rollout:
        _, key = jax.random.split(state.key)
        behave = (current(state, frozen), gate.adapted(state.drift, config.safety))
        rows = (state.memory, state.env_state)
        if of is None:
            part, controller = env, controller_of(*behave)
        else:
            first = share * env.num_envs
            part, controller = env.at_row(first), controller_of(*behave, draw_rows(of, first))
            cut = lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, first, env.num_envs)
            rows = jax.tree.map(cut, rows)
        if config.online.whole_episodes:
            key, key_start = jax.random.split(key)
            rows = (rows[0], part.reset(key_start))
        return unroll(part, controller, *rows, key, config.online.rollout)[:3]

    return roll


def _make_finish(
    config: FarlConfig, budget: Budget
) -> Callable[..., tuple[OnlineState, Transition]]:
    """Build `finish(state, gate, shares' rollouts) -> (state, steps [T, N])`."""

    def finish(state: OnlineState, gate: Gate, rolled: list[Rollout]):
        along = lambda axis: lambda *leaves: jnp.concatenate(leaves, axis)
        parts = zip(*rolled, strict=True)
        axes = (0, 0, 1)
        memory, env_state, steps = (
            jax.tree.map(along(axis), *part) for axis, part in zip(axes, parts, strict=True)
        )
        steps = steps.replace(counted=budget.counted(steps.done, state.counters.episodes))
        taken = jnp.sum(jnp.ones_like(steps.done), where=steps.counted)
        state = state.replace(
            env_state=env_state,
            memory=memory,
            key=jax.random.split(state.key)[0],
            drift=follow(state.drift, acting_share(steps), gate.max_risk, config.safety),
            counters=state.counters.add(steps),
            env_steps=state.env_steps + taken,
        )
        return devices.settle(state, PER_ENV), steps

    return finish
