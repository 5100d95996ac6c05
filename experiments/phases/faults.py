"""Diverged physics and non-finite numbers in a run, and when they stop it.

An environment whose simulator diverges is reset. Its step is marked `diverged`, counted, and left
out of learning. A run stops if this happens often, or if its networks are no longer finite. Then
nothing more is saved.
"""

import math
from collections.abc import Mapping, Sequence

from experiments.errors import UserError
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


def fault_of(run: Run, row: Mapping[str, float], sound: bool) -> str | None:
    """The reason why a run with these metrics must stop, or None."""
    bad = [name for name, value in row.items() if not math.isfinite(value)]
    if bad or not sound:
        return (
            f"{bad[0] if bad else 'a network parameter'} is not finite, and would be so again; "
            "start again with a lower online.actor_learning_rate"
        )
    diverged = row["diverged"]
    if diverged == 0:
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
