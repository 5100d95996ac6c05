"""`farl tasks --sheet`: one picture of every task: start, expert's success, failure, recovery."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from envs_mjx import BatchEnv, make, render, tasks_named
from envs_mjx.film import contact_sheet
from experiments.bench.tasks import MakeController, start_careless, start_expert
from experiments.errors import UserError
from experiments.process.outputs import check_output
from farl_jax.data.rollout import unroll
from farl_jax.measure.evaluate import first_episodes

ENVS = 64


def draw(path: Path, task: str, console: Console) -> None:
    """Write a contact sheet: a row of four frames for each task that `task` stands for."""
    check_output("--sheet", path, (".png",))
    render.find_gl()  # without it, nothing below is worth the time
    rows = [_row(make(name, "native")) for name in tasks_named(task)]
    contact_sheet(path, np.concatenate(rows), columns=4)
    console.print(f"sheet: {path}", highlight=False, soft_wrap=True)


def _row(env: Any) -> np.ndarray:
    """Start, expert's success, careless failure and recovery of one task: [4, H, W, 3]."""
    expert = _roll(env, start_expert)
    failing = _roll(env, start_careless)
    saved = _roll(env, functools.partial(start_careless, danger_margin=env.danger_margin))
    success = _first(expert, expert[0].success)
    frames = [
        _frame(env, expert, (0, success[1])),
        _frame(env, expert, success),
        _frame(env, failing, _first(failing, failing[0].failure)),
        _frame(env, saved, _first(saved, saved[0].decision.intervened, skip=3)),
    ]
    return np.concatenate(frames)


def _roll(env: Any, start: MakeController) -> tuple[Any, np.ndarray, np.ndarray]:
    """Transition [T, N], qpos [T, N, nq] and goal [T, N, 3] after each step."""
    batch = BatchEnv(env, ENVS)

    def roll(key: jax.Array) -> Any:
        key_start, key_reset, key_roll = jax.random.split(key, 3)
        memory, controller = start(env, ENVS, key_start)
        seen = lambda state, outcome: (outcome.physics.qpos, outcome.goal)
        *_, steps, extra = unroll(
            batch, controller, memory, batch.reset(key_reset), key_roll, env.episode_limit, seen
        )
        return steps, *extra

    return jax.device_get(jax.jit(roll)(jax.random.key(0)))


def _first(rolled: Any, flag: np.ndarray, skip: int = 0) -> tuple[int, int]:
    """(step, environment) of the first flag, plus `skip` flags on, in some first episode."""
    count = np.cumsum(flag & np.asarray(first_episodes(rolled[0])), axis=0)
    found = np.argwhere((count == skip + 1) & flag)
    if not len(found):
        raise UserError("no such moment in the rollouts: the task's controllers never bring it")
    step, row = found[0]
    return int(step), int(row)


def _frame(env: Any, rolled: Any, moment: tuple[int, int]) -> np.ndarray:
    steps, qpos, goal = rolled
    info = render.FrameInfo(
        step=int(steps.step_count[moment]),
        failure_margin=float(steps.next_margin[moment]),
        intervened=bool(steps.decision.intervened[moment]),
        success=bool(steps.success[moment]),
    )
    return render.render_frames(env, qpos[moment][None], goal[moment], [info])
