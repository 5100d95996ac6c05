"""Work that has begun is never replaced in silence: it is refused, gone on with, or put aside."""

import dataclasses
import os
from dataclasses import dataclass

from experiments.errors import UserError
from experiments.runs.aside import put_aside
from experiments.runs.run import Run
from farl_jax.methods import METHODS


@dataclass(frozen=True)
class Work:
    """Something that a command does in a run's folder; names are entries of it."""

    name: str
    traces: tuple[str, ...]
    """One of these is there as soon as it has begun."""
    results: tuple[str, ...]
    """What it makes, and all that is made from that."""
    resumes: bool = True
    """Whether --resume goes on with it."""


_COMPARISON = ("comparison.json", "comparison.png")
_LEARNT = ("offline", "metrics.jsonl", "tb", "risk_critic", *METHODS, *_COMPARISON)
DEMOS = Work("demos", ("demos",), ("demos", *_LEARNT))
OFFLINE = Work("the offline phase", ("offline", "metrics.jsonl"), _LEARNT)


def online(method: str) -> Work:
    """Fine-tuning by a method."""
    traces = (f"{method}/{name}" for name in ("result.json", "checkpoints", "metrics.jsonl"))
    return Work(method, tuple(traces), (method, *_COMPARISON))


def study(method: str, name: str) -> Work:
    """A study of the horizon, `<run>/<method>/<name>.json` and its figure."""
    files = (f"{method}/{name}.json", f"{method}/{name}.png")
    return Work("the study", files[:1], files, resumes=False)


def begin(run: Run, work: Work, *, overwrite: bool = False) -> Run:
    """The run in which `work` may begin now, or go on.

    With `overwrite` its results are put aside first; a run that resumes goes on.

    Raises:
        UserError: it has begun before, and neither was asked for.
    """
    if overwrite:
        aside = put_aside(run.path, work.results)
        if aside is not None:
            run.say(f"put aside: {aside}")
        return dataclasses.replace(run, resume=False)
    found = [name for name in work.traces if os.path.lexists(run.path / name)]
    if found and not (work.resumes and run.resume):
        ways = "--overwrite puts it aside and starts afresh"
        ways = f"--resume goes on with it, {ways}" if work.resumes else ways
        raise UserError(f"{run.path / found[0]}: {work.name} has begun or is finished; {ways}")
    return run
