"""Numbers that go wrong in a run, and what becomes of it.

An environment whose simulator fails starts anew; its step is marked `diverged`, counted, and taught
to nobody. A run in which that happens often is stopped, and so is one whose networks are no longer
finite, before anything of it is saved. An environment of a user's own that fails stops its run,
which is saved.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from experiments.errors import UserError
from experiments.runs.environment import named
from experiments.runs.run import Run
from farl_jax.storage import checkpoint
from farl_jax.storage.saver import Saver

FEW = 10
"""This many diverged episodes are borne whatever their share."""


def note(
    runs: Sequence[Run],
    method: str,
    rows: Sequence[Mapping[str, float]],
    sound: Sequence[bool],
    step: int,
    saver: Saver,
    trouble: dict[int, UserError],
) -> None:
    """Add the runs that cannot go on to `trouble`; where none is left, raise the first's error.

    `rows` are the runs' newest metrics, `sound` whether their networks are finite.
    """
    for i, run in enumerate(runs):
        fault = None if i in trouble else fault_of(run, rows[i], sound[i])
        if fault is None:
            continue
        saver.wait()
        found = checkpoint.latest_step(run.path / method / "checkpoints")
        way = (
            f"checkpoint {found:,} is intact, --resume goes on from it"
            if found
            else ("there is no checkpoint yet, only the offline phase's")
        )
        trouble[i] = UserError(f"step {step:,}: {fault}; {way}")
        if len(runs) > 1:
            run.say(f"  {run.path.name} stops: {trouble[i]}")
    if len(trouble) == len(runs):
        raise next(iter(trouble.values()))


class HostGuard:
    """Saves a run whose environment, a user's own, fails while it trains; other runs it lets be.

    A state is given away for the next, so each is copied before the environment is asked again.
    """

    def __init__(self, run: Run, save: Callable[[int, Any], None]) -> None:
        """`save` is called with (step, state) of the newest sound update, if there was one."""
        self.run, self.save, self.kept = run, save, None

    def watch(self, run_on: Iterator[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
        """Pass (state, metrics) on, and keep a copy of the state."""
        for state, metrics in run_on:
            if self.run.on_host:
                jax.block_until_ready(state)  # what went wrong comes out here
                self.kept = jax.tree.map(jnp.copy, state)
            yield state, metrics

    def __enter__(self) -> "HostGuard":
        """Begin to train."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Save, and say how to go on.

        Raises:
            UserError: the environment raised, or gave what is not finite.
        """
        if not self.run.on_host or not isinstance(error, jax.errors.JaxRuntimeError):
            return
        from envs_gym import message_of

        if (told := message_of(error)) is None:
            return
        what = f"{named(self.run.settings.task)}: {told}"
        if self.kept is None:
            raise UserError(
                f"{what}; no update was finished, what is saved is as it was: put it right, then "
                "--resume"
            ) from error
        step = int(self.kept.env_steps)
        self.save(step, self.kept)
        raise UserError(
            f"{what}; saved at step {step:,}: put it right, then --resume goes on from there"
        ) from error


def fault_of(run: Run, row: Mapping[str, float], sound: bool) -> str | None:
    """Why a run with this newest row of metrics must stop; None where it may go on."""
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad or not sound:
        return (
            f"{bad[0] if bad else 'a network parameter'} is not finite, and would be again: "
            "start anew with a lower online.actor_learning_rate"
        )
    diverged = row["diverged"]
    if diverged == 0 or run.on_host:  # whose own faults end the run at once
        return None
    if run.env(1).backend == "warp":
        return (
            f"physics failed in {diverged:.0f} episodes: it diverged, or one of MuJoCo Warp's "
            "contact buffers was full; use --backend mjx or native"
        )
    share = run.settings.config.online.max_diverged
    if diverged <= max(FEW, share * row["episodes"]):
        return None
    return (
        f"physics diverged in {diverged:.0f} of {row['episodes']:.0f} episodes, "
        f"more than online.max_diverged = {share}: the simulation is not to be trusted"
    )
