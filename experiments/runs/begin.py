"""Work that has begun is never replaced silently: refuse, continue, or move it aside."""

import dataclasses
import os
from dataclasses import dataclass

from experiments.errors import UserError
from experiments.runs.aside import put_aside
from experiments.runs.run import Run
from farl_jax.methods import METHODS
from farl_jax.storage.trackers import FOLDERS


@dataclass(frozen=True)
class Work:
    """The work of a command in a run's folder. Names are entries of the folder."""

    name: str
    traces: tuple[str, ...]
    """One of these exists as soon as the work has begun."""
    results: tuple[str, ...]
    """Its results, and all that is made from them."""
    resumes: bool = True
    """Whether --resume continues it."""


_COMPARISON = ("comparison.json", "comparison.png")
_LEARNT = ("offline", "metrics.jsonl", *FOLDERS, "risk_critic", *METHODS, *_COMPARISON)
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
    """Return the run in which `work` may now begin or continue.

    With `overwrite` its results are moved aside first.

    Raises:
        UserError: it has begun before, and the run neither resumes nor overwrites.
    """
    if overwrite:
        aside = put_aside(run.path, work.results)
        if aside is not None:
            run.say(f"moved old results to {aside}")
        return dataclasses.replace(run, resume=False)
    found = [name for name in work.traces if os.path.lexists(run.path / name)]
    if found and not (work.resumes and run.resume):
        ways = "--overwrite moves it aside and starts again"
        ways = f"--resume continues it, {ways}" if work.resumes else ways
        raise UserError(f"{run.path / found[0]}: {work.name} has begun or is finished; {ways}")
    return run
