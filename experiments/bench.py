"""`farl bench`: env steps per second of a jitted rollout with a policy, on this machine, now."""

import itertools
import os
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from envs_mjx import TASKS, BatchEnv, EnvError, make
from experiments.runtime import describe_environment, write_json
from farl_jax.config import FarlConfig
from farl_jax.offline import Networks
from farl_jax.rollout import policy_controller, unroll
from farl_jax.types import Normalizer

ROUNDS = 5


def run(
    task: str,
    backends: tuple[str, ...],
    num_envs: tuple[int, ...],
    out: Path | None,
    console: Console,
) -> list[dict[str, Any]]:
    """Measure one task, or `all`, on every backend at every batch size.

    The best of ROUNDS rollouts counts. A rollout is one program: policy network 3 x 256, sampling,
    physics, reward, automatic resets. A backend that cannot run here is said and passed over.
    """
    rows = []
    names = tuple(TASKS) if task == "all" else (task,)
    for name in names:
        make(name)  # refuses an unknown task before anything is measured
    for name, backend, size in itertools.product(names, backends, num_envs):
        try:
            row = measure(name, backend, size)
        except EnvError as error:
            console.print(f"{name} {backend}: {error}", highlight=False)
            continue
        rows.append(row)
        console.print(
            f"{name:<18} {backend:>7} {size:>6} envs  {row['steps_per_second']:>9,.0f} env steps/s"
            f"  compile {row['compile_seconds']:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
    if out is not None:
        write_json(out, {"rows": rows, "environment": describe_environment()})
    return rows


def measure(task: str, backend: str, num_envs: int) -> dict[str, Any]:
    """One row: steps_per_second (best and median of ROUNDS), compile_seconds, bytes_per_env."""
    env = BatchEnv(make(task, backend), num_envs)
    nets = Networks.create(FarlConfig(), env.observation_size, env.action_size)
    state = jax.jit(env.reset, compiler_options=dict(env.compiler_options))(jax.random.key(0))
    params = nets.policy.init(jax.random.key(1), state.obs)
    identity = Normalizer(0.0 * state.obs[0], 1.0 + 0.0 * state.obs[0])
    length = max(10, (16_000 if backend == "native" else 4_000) // num_envs)

    def roll(params: Any, state: Any, key: jax.Array) -> Any:
        controller = policy_controller(nets.policy.apply, params, identity, explore=True)
        _, state, steps, _ = unroll(env, controller, None, state, key, length)
        return state, steps.reward.sum()

    started = time.perf_counter()
    compiled = (
        jax.jit(roll)
        .lower(params, state, jax.random.key(2))
        .compile(compiler_options=dict(env.compiler_options))
    )
    compile_seconds = time.perf_counter() - started
    seconds = []
    for i in range(ROUNDS + 1):
        started = time.perf_counter()
        state, _ = jax.block_until_ready(compiled(params, state, jax.random.key(i)))
        seconds.append(time.perf_counter() - started)
    rates = sorted(num_envs * length / s for s in seconds[1:])
    leaves = jax.tree.leaves(state)
    return {
        "task": task,
        "backend": backend,
        "num_envs": num_envs,
        "steps_per_second": rates[-1],
        "steps_per_second_median": rates[len(rates) // 2],
        "compile_seconds": compile_seconds,
        "bytes_per_env": sum(leaf.nbytes for leaf in leaves) // num_envs,
        "cpu_count": os.cpu_count(),
    }
