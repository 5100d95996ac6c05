"""Films: exploring episodes with the gate, and two methods side by side from the same start.

Recovery steps have a red border.
"""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from envs_mjx import render
from envs_mjx.film import contact_sheet, write_video
from experiments.errors import UserError
from experiments.phases import offline
from experiments.phases.newest import newest
from experiments.runs.files import RESULT
from experiments.runs.run import Run
from farl_jax.data.rollout import unroll
from farl_jax.measure.evaluate import first_episodes
from farl_jax.methods import BASELINE, METHODS, find_method
from farl_jax.safety import behaviour
from farl_jax.types import Transition

EPISODES = 3
FRAMES = 24  # of one episode at most; software rendering takes 0.1 to 0.3 s each
SHEET_FRAMES = 16
BESIDE_FRAMES, BESIDE_WIDTH, BESIDE_HEIGHT = 40, 400, 300  # a GIF below 3 MB
BESIDE_AFTER = 16  # steps shown after a failure
BESIDE_HOLD = 8  # the last frame is shown this often


@dataclass(frozen=True)
class Rollout:
    """One rollout from reset by a method's newest policy, with exploration."""

    env: Any
    trained: int  # online steps of the policy
    steps: Transition  # [T, N]
    qpos: np.ndarray  # [T, N, nq]
    goal: np.ndarray  # [T, N, 3]
    max_risk: float | None  # eps_safe; None without a gate

    @property
    def mask(self) -> np.ndarray:
        """The steps of each environment's first episode, [T, N] bool."""
        return np.asarray(first_episodes(self.steps))

    def frames(self, shown: np.ndarray, i: int, title: str = "", **size: int) -> np.ndarray:
        """Frames [K, H, W, 3] of environment i at the steps `shown` [K]."""
        failed = np.logical_or.accumulate(self.steps.failure[:, i])
        info = [
            render.FrameInfo(
                step=int(self.steps.step_count[t, i]),
                failure_margin=float(self.steps.next_margin[t, i]),
                risk=None if self.max_risk is None else float(self.steps.decision.risk[t, i]),
                max_risk=self.max_risk,
                intervened=bool(self.steps.decision.intervened[t, i]),
                success=bool(self.steps.success[t, i]),
                title=title,
                failed=bool(failed[t]),
            )
            for t in shown
        ]
        return render.render_frames(
            self.env, self.qpos[shown, i], self.goal[shown, i], info, **size
        )


def film(run: Run, method: str) -> None:
    """Write `<run>/<method>/film.mp4`, `film.gif` and `sheet.png`.

    It shows the newest checkpoint's policy with exploration. Episodes without failure come first,
    then those that succeed after a recovery, then those with more recovered steps.
    """
    if run.on_host:
        return run.say("film: none, an environment of your own is not drawn")
    render.find_gl()  # fails before the slow part
    rolled = _roll(run, method)
    frames = _chosen(rolled)
    folder = run.path / method
    write_video(folder / "film.mp4", frames, fps=10.0)
    write_video(folder / "film.gif", frames[::2], fps=8.0)
    picks = np.linspace(0, len(frames) - 1, SHEET_FRAMES).astype(int)
    contact_sheet(folder / "sheet.png", frames[picks])
    run.say(
        f"film: {folder / 'film.mp4'}  ({len(frames)} frames, policy of step {rolled.trained:,})"
    )


def film_beside(run: Run, method: str) -> None:
    """Write `<run>/<method>/beside.gif`: left the baseline, right `method`, from the same start.

    The start is one where the baseline fails and the method succeeds, if there is one.

    Raises:
        UserError: one of the methods is not finished, or the task cannot be drawn.
    """
    if run.on_host:
        raise UserError("an environment of your own is not drawn")
    for name in (BASELINE, method):
        if not (run.path / name / RESULT).is_file():
            raise UserError(f"{run.path} has no result of {name}; farl online trains it")
    render.find_gl()
    left, right = _roll(run, BASELINE), _roll(run, method)
    i = _telling(left, right)
    titles = METHODS[BASELINE].title, METHODS[method].title
    size = {"width": BESIDE_WIDTH, "height": BESIDE_HEIGHT}
    halves = []
    for each, title, shown in zip((left, right), titles, _in_step(left, right, i), strict=True):
        steps, order = np.unique(shown, return_inverse=True)
        halves.append(each.frames(steps, i, title, **size)[order])
    path = run.path / method / "beside.gif"
    write_video(path, np.concatenate(halves, axis=2), fps=8.0)
    run.say(f"film: {path}  (left to right: {', '.join(titles)}; environment {i})")


def _roll(run: Run, method: str) -> Rollout:
    """Roll out the newest policy of a method. All methods have the same starts."""
    config, spec = run.settings.config, find_method(method)
    frozen = offline.start_of(run, spec)
    env = run.online_env(max(config.online.num_envs, config.online.eval_episodes))
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
    return Rollout(env.env, trained, steps, np.asarray(qpos), np.asarray(goal), max_risk)


def _chosen(rolled: Rollout) -> np.ndarray:
    """Frames [K, H, W, 3] of the chosen environments' first episodes, around their recoveries."""
    mask, steps = rolled.mask, rolled.steps
    recovered = (steps.decision.intervened & mask).sum(0)
    succeeded = (steps.success & mask).any(0)
    clean = ~(steps.failure & mask).any(0)
    saved = succeeded & (recovered > 0)
    order = np.lexsort((-np.minimum(recovered, 20), ~saved, ~clean))
    windows = {
        int(i): _window(np.flatnonzero(mask[:, i]), steps.decision.intervened[:, i])
        for i in order[:EPISODES]
    }
    return np.concatenate([rolled.frames(shown, i) for i, shown in windows.items()])


def _window(episode: np.ndarray, intervened: np.ndarray) -> np.ndarray:
    """Every second of at most 2 FRAMES steps of an episode, ending after its recoveries.

    A short episode is shown whole. Without recoveries its end is shown.
    """
    acting = np.intersect1d(episode, np.flatnonzero(intervened))
    end = min(episode[-1], acting[-1] + FRAMES // 2) if len(acting) else episode[-1]
    return np.arange(max(episode[0], end - 2 * FRAMES + 2), end + 1)[::2]


def _telling(left: Rollout, right: Rollout) -> int:
    """The start that shows the difference best: left fails, right does not and succeeds.

    Among equals it is the one with the shortest episode on the right.
    """
    fails = lambda each: (each.steps.failure & each.mask).any(0)
    succeeds = (right.steps.success & right.mask).any(0)
    order = (right.mask.sum(0), ~succeeds, fails(right), ~fails(left))
    return int(np.lexsort(order)[0])


def _in_step(left: Rollout, right: Rollout, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps [K] of either rollout's first episode, the same moment of both in each frame.

    The film ends with the longer episode, or BESIDE_AFTER steps after a failure that comes before.
    An episode that has ended stands still.
    """
    last = [int(each.mask[:, i].sum()) - 1 for each in (left, right)]
    ends = list(last)
    for n, each in enumerate((left, right)):
        if (failing := np.flatnonzero(each.steps.failure[: last[n] + 1, i])).size:
            ends[n] = min(last[n], int(failing[0]) + BESIDE_AFTER)
    picks = np.linspace(0, max(ends), min(BESIDE_FRAMES, max(ends) + 1)).astype(int)
    picks = np.append(picks, [picks[-1]] * BESIDE_HOLD)
    return np.minimum(picks, last[0]), np.minimum(picks, last[1])
