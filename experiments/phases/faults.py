"""Diverged physics and non-finite numbers in a run, and when they stop it.

An environment whose simulator diverges is reset. Its step is marked `diverged`, counted, and left
out of learning. A run stops if this happens often, or if its networks are no longer finite. Then
nothing more is saved. If a user's own environment fails, its run is saved and stops.
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
"""So many diverged episodes are allowed in any run."""


def note(
    runs: Sequence[Run],
    method: str,
    rows: Sequence[Mapping[str, float]],
    sound: Sequence[bool],
    step: int,
    saver: Saver,
    trouble: dict[int, UserError],
) -> None:
    """Add the runs that must stop to `trouble`. If all must, raise the first one's error.

    `rows` are the runs' newest metrics. `sound` says whether their networks are finite.
    """
    for i, run in enumerate(runs):
        fault = None if i in trouble else fault_of(run, rows[i], sound[i])
        if fault is None:
            continue
        saver.wait()
        found = checkpoint.latest_step(run.path / method / "checkpoints")
        way = (
            f"checkpoint {found:,} is intact; --resume continues from it"
            if found
            else "there is no online checkpoint yet"
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
    """The reason why a run with these metrics must stop, or None."""
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad or not sound:
        return (
            f"{bad[0] if bad else 'a network parameter'} is not finite, and would be so again; "
            "start again with a lower online.actor_learning_rate"
        )
    diverged = row["diverged"]
    if diverged == 0 or run.on_host:  # whose own faults end the run at once
        return None
    if run.env(1).backend == "warp":
        return (
            f"physics diverged in {diverged:.0f} episodes, or a contact buffer of MuJoCo Warp was "
            "full; use --backend mjx or native"
        )
    share = run.settings.config.online.max_diverged
    if diverged <= max(FEW, share * row["episodes"]):
        return None
    return (
        f"physics diverged in {diverged:.0f} of {row['episodes']:.0f} episodes, "
        f"more than online.max_diverged ({share}); do not trust this simulation"
    )
