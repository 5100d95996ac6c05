"""Which runs train together: as many as fit into memory."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.phases import offline
from experiments.phases.judge import Judge
from experiments.process.machine import free_memory
from experiments.runs.run import Run
from farl_jax.methods import Method
from farl_jax.online import memory
from farl_jax.online.loop import OnlinePhase
from farl_jax.online.seeds import group_sizes, seed_bytes
from farl_jax.safety.behaviour import make_gate

CLEAR = 0.25
"""Runs whose arrays need less than this share of the free memory are one group. For more, the
programs are compiled at two numbers of seeds, which takes about as long as their first calls."""


def groups(
    runs: list[Run], spec: Method, phase: OnlinePhase, judge: Judge, num_devices: int
) -> list[list[Run]]:
    """Split the runs into groups that fit into memory, and print the estimate."""
    if len(runs) == 1:
        return [runs]
    resident, rollout, programs = _one_seed(runs[0], spec, phase, judge)
    env = runs[0].online_env(judge.config.online.eval_episodes)
    evaluation = env.episode_limit * env.num_envs / phase.steps_per_update
    line = memory.Line(0.0, seed_bytes(resident, rollout, max(1.0, evaluation)))
    free, known = free_memory(num_devices), "about"
    if free is not None and line.at(len(runs)) > CLEAR * free:
        line, known = memory.measure((*resident, rollout), programs), "by the compiled programs"
    sizes = group_sizes(len(runs), line.at, free)
    room = "" if free is None else f" of {free / 1e9:.1f} GB free"
    way = "" if len(sizes) == 1 else f", in groups of {' + '.join(map(str, sizes))}"
    needed = line.at(len(runs)) / 1e9
    runs[0].say(f"  {len(runs)} runs together: {known} {needed:.1f} GB{room}{way}")
    ends = np.cumsum(sizes)
    return [runs[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def _one_seed(
    run: Run, spec: Method, phase: OnlinePhase, judge: Judge
) -> tuple[tuple[Any, ...], Any, Sequence[memory.Program]]:
    """Shapes of one run: (state, offline result, gate, rehearsal), rollout; and its programs."""
    config, key = judge.config, run.key("online")
    frozen = run.offline_result()
    rehearsal = offline.rehearsal_of(run, frozen, spec)[1] if phase.learns_risk else None
    if spec.gate == "critic":
        frozen = frozen.replace(risk_critic=run.networks().abstract_risk_critic())
    gate = make_gate(config, frozen, spec)
    state = jax.eval_shape(phase.init, frozen, key, frozen.value)
    rollout = jax.eval_shape(phase.collect, state, frozen, gate)[1]
    options = dict(run.env(1).compiler_options)
    programs = [
        memory.Program(phase.collect, (state, frozen, gate), True, options),
        memory.Program(phase.update, (state, frozen, rollout, rehearsal), True, {}),
        memory.Program(judge.program(spec), (key, frozen, gate), False, options),
    ]
    return (state, frozen, gate, rehearsal), rollout, programs
