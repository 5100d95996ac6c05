"""Lower bounds of a run's memory and time, checked before it starts.

They are arithmetic, not predictions. They stop a run that could only fail, for example because of
one digit too many. Sizes are FailureBench's. Your own task may need more.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from experiments.errors import UserError
from farl_jax.config import FarlConfig

OBSERVATION, ACTION, EPISODE = 39, 4, 200
"""Sizes of FailureBench, and its longest episode in steps."""
STEP_BYTES = 4 * (2 * OBSERVATION + 2 * ACTION + 20)
"""One stored transition."""
LEARNER_COPIES = 4
"""Parameters, their gradient, and Adam's two moments."""
PHYSICS_SECONDS = 2e-5
"""Seconds of one env step on one core. Measured: 6e-5 and more (results/bench.json)."""
FLOP_RATE = 2e11
"""FLOP/s of one core at best. Measured: 1.9e11 for two together."""
ACCELERATOR_SPEEDUP = 300
RUN_SECONDS = 30.0
"""Further seconds of one run, on any machine: tracing, loading programs, saving, drawing."""
MAX_DAYS = 30.0

Parts = Mapping[str, float]
"""Settings that decide a part of the memory -> its size."""


@dataclass(frozen=True)
class Needs:
    """Lower bounds of one run."""

    memory: Parts  # bytes
    seconds: float  # on one core


def needs_of(config: FarlConfig, methods: int = 2) -> Needs:
    """Return the least needs of one seed with `methods` methods, one after the other."""
    demos, online, world = config.demos, config.online, config.world_model
    sizes = parameters(config)
    rows = EPISODE * (demos.task_episodes + demos.failure_episodes + demos.policy_episodes)
    rows += demos.recovery_length * demos.recovery_episodes
    window = world.train_horizon * STEP_BYTES
    memory = {
        "network.width, network.depth": 4 * LEARNER_COPIES * (sizes["policy"] + sizes["value"]),
        "network.width, bc.members": 4 * LEARNER_COPIES * config.bc.members * sizes["policy"],
        "network.width, recovery_bc.members": 4
        * LEARNER_COPIES
        * config.recovery_bc.members
        * sizes["policy"],
        "network.width, offline_ppo.ensemble": 4 * LEARNER_COPIES * sizes["transitions"],
        "world_model.width, world_model.latent": 4 * LEARNER_COPIES * sizes["world_model"],
        "bc.batch": 4 * config.bc.batch * config.network.width,
        "recovery_bc.batch": 4 * config.recovery_bc.batch * config.network.width,
        "iql.batch": 4 * config.iql.batch * config.network.width,
        "offline_ppo.batch": 4 * config.offline_ppo.batch * config.network.width,
        "offline_ppo.model_batch": 4 * config.offline_ppo.model_batch * config.network.width,
        "offline_ppo.start_states": STEP_BYTES * config.offline_ppo.start_states,
        "world_model.batch": 4 * world.batch * world.train_horizon * world.width,
        "world_model.bins": 4 * world.batch * world.train_horizon * world.bins,
        "risk_critic.batch": 4 * config.risk_critic.batch * config.network.width,
        "risk_critic.transitions": STEP_BYTES * config.risk_critic.transitions,
        "risk_critic.failing_transitions": STEP_BYTES * config.risk_critic.failing_transitions,
        "demos.*_episodes": STEP_BYTES * rows,
        "demos.num_envs": STEP_BYTES * EPISODE * demos.num_envs,
        "online.num_envs, online.rollout": STEP_BYTES * online.num_envs * online.rollout,
        "online.eval_episodes": STEP_BYTES * EPISODE * online.eval_episodes,
        "adaptation.windows": window * config.adaptation.windows,
        "adaptation.failing_windows": window * config.adaptation.failing_windows,
        "mppi.samples": 4 * config.mppi.samples * config.mppi.horizon * world.width,
    }
    acting = EPISODE * (online.final_episodes + online.env_steps // online.eval_every)
    steps = methods * (online.env_steps + acting) + rows
    learnt = (
        6
        * sizes["policy"]
        * (
            methods * online.epochs * online.env_steps
            + config.bc.members * config.bc.steps * config.bc.batch
            + config.recovery_bc.members * config.recovery_bc.steps * config.recovery_bc.batch
        )
    )
    learnt += 6 * sizes["world_model"] * world.steps * world.batch * world.train_horizon
    learnt += 6 * sizes["value"] * config.iql.steps * config.iql.batch
    return Needs(memory, steps * PHYSICS_SECONDS + learnt / FLOP_RATE)


def parameters(config: FarlConfig) -> dict[str, int]:
    """Return the numbers of parameters: policy, value, transitions (all members), world_model."""
    net, world = config.network, config.world_model
    both = OBSERVATION + ACTION
    outputs = world.latent + 2 * world.bins + 1
    return {
        "policy": _mlp(OBSERVATION, net.width, net.depth, 2 * ACTION),
        "value": _mlp(OBSERVATION, net.width, net.critic_depth, 1),
        "transitions": config.offline_ppo.ensemble
        * _mlp(both, net.width, net.critic_depth, 2 * OBSERVATION),
        "world_model": _mlp(world.latent + ACTION, world.width, 2, outputs),
    }


def check_fits(
    config: FarlConfig, seeds: int = 1, methods: int = 2, *, insist: bool = False
) -> None:
    """Refuse runs that cannot fit into this machine or into `MAX_DAYS`, unless `insist`.

    Args:
        config: of each run.
        seeds: number of runs, one after the other.
        methods: number of methods of each run.
        insist: whether to skip the check.

    Raises:
        UserError: too much memory, or too much time.
    """
    if insist:
        return
    needs = needs_of(config, methods)
    _check_memory(needs.memory, ", or add --insist")
    cores = (os.cpu_count() or 1) * ACCELERATOR_SPEEDUP if _accelerated() else os.cpu_count() or 1
    days = seeds * (RUN_SECONDS + needs.seconds / cores) / 86_400
    if days > MAX_DAYS:
        raise UserError(
            f"this takes at least {days:,.0f} days here ({seeds:,} runs by {methods} methods of "
            f"{config.online.env_steps:,} online steps); ask for less, or add --insist"
        )


def check_rollout(num_envs: int, length: int, what: str) -> None:
    """Refuse a rollout of `length` steps in `num_envs` environments that does not fit into memory.

    `what` is the option that decides its size.

    Raises:
        UserError: it is too large.
    """
    _check_memory({what: float(STEP_BYTES * num_envs * length)})


def _check_memory(parts: Parts, way: str = "") -> None:
    from experiments.process.machine import free_memory  # it starts JAX

    total, most = sum(parts.values()), max(parts, key=parts.__getitem__)
    room = free_memory()
    if room is not None and total > room:
        raise UserError(
            f"this needs at least {total / 1e9:,.0f} GB of memory, most of it for {most}, but "
            f"{room / 1e9:,.1f} GB are free here; lower {most.replace(', ', ' or ')}{way}"
        )


def _mlp(inputs: int, width: int, depth: int, outputs: int) -> int:
    """Parameters of a network of `depth` hidden layers."""
    return inputs * width + (depth - 1) * width * width + width * outputs


def _accelerated() -> bool:
    import jax

    return jax.default_backend() != "cpu"
