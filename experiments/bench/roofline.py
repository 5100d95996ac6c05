"""`farl bench roofline`: bounds of a GPU's speed, from XLA's text of the loop's programs.

A step of N environments takes at least the largest of three times: kernels times the time to launch
one, operations over the device's peak, and bytes over its memory's speed. The programs are compiled
here, for the CPU. On a GPU, XLA fuses differently, so the number of kernels is an estimate.
"""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
from rich.console import Console
from rich.table import Table

from experiments.arguments_bench import BenchRooflineArgs
from experiments.bench import hlo
from experiments.bench.loop_parts import Setup, ask_gate
from experiments.process.machine import describe_environment
from experiments.process.outputs import check_output, write_json
from farl_jax.data.rollout import policy_controller

RUN_STEPS = 1_000_000
"""Env steps of the paper preset."""


class Device(NamedTuple):
    """What bounds a device. All numbers are assumptions."""

    name: str
    flop_per_second: float
    bytes_per_second: float
    launch_seconds: float
    """Of one kernel inside a compiled program."""


H100 = Device("H100 SXM", 67e12, 3.35e12, 3e-6)
"""Data sheet: float32 without tensor cores, since the precision of products is `highest`; HBM3.
A launch of 2 to 5 us is common; CUDA graphs make it shorter."""


class Count(NamedTuple):
    """A program's counts at `envs` environments."""

    envs: int
    calls: float
    """Per env step of the whole batch."""
    cost: hlo.Cost

    def seconds(self, num_envs: int, device: Device = H100) -> float:
        """Return the least seconds per step of `num_envs` environments.

        Kernels stay as many. Operations and bytes grow with the batch.
        """
        share = num_envs / self.envs
        bounds = (
            self.cost.kernels * device.launch_seconds,
            share * self.cost.flop / device.flop_per_second,
            share * self.cost.bytes / device.bytes_per_second,
        )
        return self.calls * max(bounds)

    def crossing(self, device: Device = H100) -> float:
        """Return the batch from which launches no longer bound the speed."""
        work = self.cost.flop / device.flop_per_second, self.cost.bytes / device.bytes_per_second
        return self.envs * self.cost.kernels * device.launch_seconds / max(work)


def run(args: BenchRooflineArgs, console: Console) -> dict[str, Any]:
    """Count the programs of a task's loop, and print and write the bounds."""
    check_output("--out", args.out)
    setup = Setup(args.task, "mjx", args.compiled_envs)
    counts = count(setup)
    rows = [row(name, counted, args.num_envs) for name, counted in counts.items()]
    whole = [total(counts.values(), n) for n in args.num_envs]
    console.print(_table(rows, args.num_envs))
    for n, seconds in zip(args.num_envs, whole, strict=True):
        console.print(
            f"{n:,} environments: at most {n / seconds:,.0f} env steps/s, "
            f"{RUN_STEPS:,} steps in at least {RUN_STEPS * seconds / n:.1f} s",
            highlight=False,
            soft_wrap=True,
        )
    found = {
        "task": args.task,
        "device": H100._asdict(),
        "turns": turns(setup),
        "rows": rows,
        "whole": [
            {"num_envs": n, "seconds_per_step": s, "run_seconds": RUN_STEPS * s / n}
            for n, s in zip(args.num_envs, whole, strict=True)
        ],
    }
    if args.out is not None:
        write_json(args.out, found | {"environment": describe_environment()})
    return found


def turns(setup: Setup) -> int:
    """Return the turns of a loop of unknown length: the solver's, which a batch mostly uses up."""
    return int(setup.env.env.model.opt.iterations)


def count(setup: Setup) -> dict[str, Count]:
    """Compile the programs of the online loop and count what they do."""
    env, phase, envs = setup.env, setup.phase, setup.num_envs
    frozen, gate = jax.eval_shape(lambda: (setup.frozen, setup.gate))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(phase.init, frozen, key)
    rollout = jax.eval_shape(phase.collect, state, frozen, gate)[1]
    first = lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype)
    obs, actions = first(rollout.obs), first(rollout.decision.action)
    per_update = 1.0 / setup.config.online.rollout
    options = dict(env.compiler_options)

    def counted(calls: float, function: Any, *shapes: Any, **how: Any) -> Count:
        text = jax.jit(function, **how).lower(*shapes).compile().as_text()
        return Count(envs, calls, hlo.cost(text, turns(setup)))

    def policy(obs: jax.Array, key: jax.Array) -> Any:
        nets, own = setup.nets, setup.frozen
        act = policy_controller(nets.policy.apply, own.policy, own.normalizer, explore=True)
        return act(None, SimpleNamespace(obs=obs), key)[1]

    return {
        "physics": counted(1.0, env.step, state.env_state, actions, key, compiler_options=options),
        "policy": counted(1.0, policy, obs, key),
        "gate": counted(1.0, lambda obs, act: ask_gate(setup, obs, act), obs, actions),
        "update": counted(per_update, phase.update, state, frozen, rollout, donate_argnums=0),
    }


def total(counts: Iterable[Count], num_envs: int) -> float:
    """Return the least seconds per step of `num_envs` environments by the whole loop."""
    return sum(counted.seconds(num_envs) for counted in counts)


def row(name: str, counted: Count, num_envs: Sequence[int]) -> dict[str, Any]:
    """Return a program's counts per env step and its bounds."""
    share = counted.calls / counted.envs
    return {
        "part": name,
        "kernels_per_step": counted.calls * counted.cost.kernels,
        "flop_per_env_step": share * counted.cost.flop,
        "bytes_per_env_step": share * counted.cost.bytes,
        "loops_of_unknown_length": counted.cost.unknown_loops,
        "launches_matter_below": counted.crossing(),
        "seconds_per_step": {str(n): counted.seconds(n) for n in num_envs},
    }


def _table(rows: Sequence[dict[str, Any]], num_envs: Sequence[int]) -> Table:
    table = Table(title=f"bounds on one {H100.name}, per step of all environments")
    heads = ("part", "kernels", "kFLOP an env", "kB an env", "launches matter below")
    for head in (*heads, *(f"ms at {n:,}" for n in num_envs)):
        table.add_column(head, justify="left" if head == "part" else "right")
    for one in rows:
        work = (one["flop_per_env_step"], one["bytes_per_env_step"])
        table.add_row(
            one["part"],
            f"{one['kernels_per_step']:,.0f}",
            *(f"{value / 1e3:,.0f}" for value in work),
            f"{one['launches_matter_below']:,.0f}",
            *(f"{1e3 * one['seconds_per_step'][str(n)]:.3f}" for n in num_envs),
        )
    return table
