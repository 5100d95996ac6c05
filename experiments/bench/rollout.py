"""`farl bench`: env steps per second of a jitted rollout with a policy, on this machine."""

import itertools
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from envs_mjx import BatchEnv, EnvError, make, tasks_named
from experiments.errors import UserError
from experiments.figures.bench import throughput_figure
from experiments.figures.decoration import decoration
from experiments.process.console import command_typed
from experiments.process.machine import describe_environment
from experiments.process.outputs import FIGURES, check_output, write_json
from farl_jax.agent import Networks
from farl_jax.config import FarlConfig
from farl_jax.data.rollout import policy_controller, unroll
from farl_jax.types import Normalizer

ROUNDS = 5
ENOUGH = 3.0
"""Seconds of a native rollout of full length on two cores."""


def run(
    task: str,
    backends: tuple[str, ...],
    num_envs: tuple[int, ...],
    console: Console,
    *,
    seconds: float = 30.0,
    out: Path | None = None,
    figure: Path | None = None,
    metaworld: Path | None = None,
) -> list[dict[str, Any]]:
    """Measure one task, a suite or `all`, on every backend at every batch size.

    `metaworld` is a Python with MetaWorld, which tests/oracle/bench_metaworld.py then measures in
    the same run. `out` is a JSON file, `figure` a picture.

    The best of ROUNDS rollouts counts, or of fewer once they took `seconds`. A rollout is one
    program: policy network 3 x 256, sampling, physics, reward, automatic resets. A backend that
    cannot run here is reported and skipped.
    """
    rows, reason = [], ""
    names = tasks_named(task)
    for name in names:
        make(name)  # raises on an unknown task before any measurement
    check_output("--figure", figure, FIGURES)
    check_output("--out", out)
    reference = _metaworld(metaworld) if metaworld is not None else {}
    for processes, rate in reference.items():
        console.print(
            f"MetaWorld, {processes} process(es): {rate:,.0f} env steps/s", highlight=False
        )
    for name, backend, size in itertools.product(names, backends, num_envs):
        try:
            row = measure(name, backend, size, seconds)
        except EnvError as error:
            reason = f": {error}"
            console.print(f"{name} {backend}: {error}", highlight=False)
            continue
        rows.append(row)
        if out is not None:
            write_json(
                out,
                {"rows": rows, "metaworld": reference, "environment": describe_environment()},
            )
        console.print(
            f"{name:<18} {backend:>7} {size:>6} envs  {row['steps_per_second']:>9,.0f} env steps/s"
            f"  compile {row['compile_seconds']:.1f} s"
            f"  reset {row['reset_microseconds']:.0f} us/env  {row['bytes_per_env']} bytes/env",
            highlight=False,
            soft_wrap=True,
        )
    if not rows:
        raise UserError(f"nothing could be measured{reason}")
    if figure is not None:
        with decoration("figure", "the rows are above; the same command measures again"):
            throughput_figure(figure, rows, reference, command_typed())
            console.print(f"figure: {figure}", highlight=False, soft_wrap=True)
    return rows


def _metaworld(python: Path) -> dict[str, float]:
    """Return env steps per second of MetaWorld's push-v3, by number of processes."""
    script = Path(__file__).parents[2] / "tests" / "oracle" / "bench_metaworld.py"
    reason = "it printed nothing"
    try:
        done = subprocess.run(
            [python, script, "--json"], capture_output=True, text=True, check=False
        )
        reason = (done.stderr.strip() or reason).splitlines()[-1]
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, IndexError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else reason
        raise UserError(
            f"--metaworld {python} could not measure MetaWorld ({reason}): give a Python with "
            "metaworld 3.1.1, and run from a checkout"
        ) from None


def measure(task: str, backend: str, num_envs: int, most: float) -> dict[str, Any]:
    """Return one row: best and median steps per second, and times of compiling and resetting.

    Rollouts take `most` seconds at most, but two are made.
    """
    env = BatchEnv(make(task, backend), num_envs)
    nets = Networks.create(FarlConfig(), env.observation_size, env.action_size)
    options = dict(env.compiler_options)
    reset = jax.jit(env.reset, compiler_options=options)
    state = jax.block_until_ready(reset(jax.random.key(0)))
    started = time.perf_counter()
    for i in range(ROUNDS):
        jax.block_until_ready(reset(jax.random.key(i)))
    reset_seconds = (time.perf_counter() - started) / ROUNDS
    params = nets.policy.init(jax.random.key(1), state.obs)
    identity = Normalizer(0.0 * state.obs[0], 1.0 + 0.0 * state.obs[0])
    length = rollout_length(backend, num_envs, most)

    def roll(params: Any, state: Any, key: jax.Array) -> Any:
        controller = policy_controller(nets.policy.apply, params, identity, explore=True)
        _, state, steps, _ = unroll(env, controller, None, state, key, length)
        return state, steps.reward.sum()

    started = time.perf_counter()
    compiled = (
        jax.jit(roll).lower(params, state, jax.random.key(2)).compile(compiler_options=options)
    )
    compile_seconds = time.perf_counter() - started
    state, _ = jax.block_until_ready(compiled(params, state, jax.random.key(0)))
    seconds: list[float] = []
    while len(seconds) < 2 or (len(seconds) < ROUNDS and sum(seconds) < most):
        started = time.perf_counter()
        key = jax.random.key(len(seconds) + 1)
        state, _ = jax.block_until_ready(compiled(params, state, key))
        seconds.append(time.perf_counter() - started)
    rates = sorted(num_envs * length / s for s in seconds)
    leaves = jax.tree.leaves(state)
    return {
        "task": task,
        "backend": backend,
        "num_envs": num_envs,
        "steps_per_second": rates[-1],
        "steps_per_second_median": rates[len(rates) // 2],
        "compile_seconds": compile_seconds,
        "reset_microseconds": 1e6 * reset_seconds / num_envs,
        "bytes_per_env": sum(leaf.nbytes for leaf in leaves) // num_envs,
        "cpu_count": os.cpu_count(),
    }


def rollout_length(backend: str, num_envs: int, seconds: float) -> int:
    """Steps of a rollout: few on a CPU, which is slow; on a GPU as many as in training or more.

    Rows that may take less than `ENOUGH` seconds have shorter ones: two are made in any case.
    """
    if jax.default_backend() != "cpu" and backend != "native":
        return max(32, 65_536 // num_envs)
    steps = min(1.0, seconds / ENOUGH) * (16_000 if backend == "native" else 4_000)
    return max(4, int(steps) // num_envs)
