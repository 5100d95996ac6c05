"""The film: exploring episodes with the gate. Recovery steps have a red border."""

from typing import Any

import jax
import numpy as np

from envs_mjx import render
from envs_mjx.film import contact_sheet, write_video
from experiments.phases import offline
from experiments.phases.newest import newest
from experiments.runs.run import Run
from farl_jax.data.rollout import unroll
from farl_jax.measure.evaluate import first_episodes
from farl_jax.methods import find_method
from farl_jax.safety import behaviour

EPISODES = 3
FRAMES = 24  # of one episode at most; software rendering takes 0.1 to 0.3 s each
SHEET_FRAMES = 16


def film(run: Run, method: str) -> None:
    """Write `<run>/<method>/film.mp4`, `film.gif` and `sheet.png`.

    It shows the newest checkpoint's policy with exploration. Episodes without failure come first,
    then those that succeed after a recovery, then those with more recovered steps.
    """
    config, spec = run.settings.config, find_method(method)
    render.find_gl()  # fails before the slow part
    frozen = offline.start_of(run, spec)
    env = run.env(config.online.num_envs)
    controller = behaviour.make_controller(run.networks(), config, spec, explore=True)

    def roll(learnt: Any, gate: Any, key: jax.Array):
        key_reset, key_roll = jax.random.split(key)
        state = env.reset(key_reset)
        seen = lambda state, outcome: (outcome.physics.qpos, outcome.goal)
        memory = behaviour.start_memory(config, spec, env)
        *_, steps, extra = unroll(
            env, controller(learnt, gate), memory, state, key_roll, env.episode_limit, seen
        )
        return steps, extra

    roll = jax.jit(roll, compiler_options=dict(env.compiler_options))
    trained, learnt, gate = newest(run, method, frozen)
    steps, (qpos, goal) = jax.device_get(roll(learnt, gate, run.key("film")))
    max_risk = float(gate.max_risk) if spec.gated else None
    frames = _frames(env.env, steps, np.asarray(qpos), np.asarray(goal), max_risk)
    folder = run.path / method
    write_video(folder / "film.mp4", frames, fps=10.0)
    write_video(folder / "film.gif", frames[::2], fps=8.0)
    picks = np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int)
    contact_sheet(folder / "sheet.png", frames[picks])
    run.say(f"film: {folder / 'film.mp4'}  ({len(frames)} frames, policy of step {trained:,})")


def _frames(
    env: Any, steps: Any, qpos: np.ndarray, goal: np.ndarray, max_risk: float | None
) -> np.ndarray:
    """Frames [K, H, W, 3] of the chosen environments' first episodes, around their recoveries."""
    mask = np.asarray(first_episodes(steps))
    recovered = (steps.decision.intervened & mask).sum(0)
    succeeded = (steps.success & mask).any(0)
    clean = ~(steps.failure & mask).any(0)
    saved = succeeded & (recovered > 0)
    order = np.lexsort((-np.minimum(recovered, 20), ~saved, ~clean))
    parts = []
    for i in order[:EPISODES]:
        shown = _window(np.flatnonzero(mask[:, i]), steps.decision.intervened[:, i])
        info = [
            render.FrameInfo(
                step=int(steps.step_count[t, i]),
                failure_margin=float(steps.next_margin[t, i]),
                horizon_cost=None if max_risk is None else float(steps.decision.horizon_cost[t, i]),
                max_risk=max_risk,
                intervened=bool(steps.decision.intervened[t, i]),
                success=bool(steps.success[t, i]),
            )
            for t in shown
        ]
        parts.append(render.render_frames(env, qpos[shown, i], goal[shown, i], info))
    return np.concatenate(parts)


def _window(episode: np.ndarray, intervened: np.ndarray) -> np.ndarray:
    """Every second of at most 2 FRAMES steps of an episode, ending after its recoveries.

    A short episode is shown whole. Without recoveries its end is shown.
    """
    acting = np.intersect1d(episode, np.flatnonzero(intervened))
    end = min(episode[-1], acting[-1] + FRAMES // 2) if len(acting) else episode[-1]
    return np.arange(max(episode[0], end - 2 * FRAMES + 2), end + 1)[::2]
