"""Numbers that go wrong in a run, and what becomes of it.

An environment whose simulator fails starts anew; its step is marked `diverged`, counted, and taught
to nobody. A run in which that happens often is stopped, and so is one whose networks are no longer
finite, before anything of it is saved.
"""

import math
from collections.abc import Mapping, Sequence

from experiments.errors import UserError
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


def fault_of(run: Run, row: Mapping[str, float], sound: bool) -> str | None:
    """Why a run with this newest row of metrics must stop; None where it may go on."""
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad or not sound:
        return (
            f"{bad[0] if bad else 'a network parameter'} is not finite, and would be again: "
            "start anew with a lower online.actor_learning_rate"
        )
    diverged = row["diverged"]
    if diverged == 0:
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
