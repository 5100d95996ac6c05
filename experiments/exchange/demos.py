"""Import demonstrations into a run, and export a run's demonstrations and online steps."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.errors import UserError, disk_errors
from experiments.exchange import arrays, minari_sets
from experiments.exchange.episodes import Meaning, check_kind, to_dataset
from experiments.phases.demos import describe
from experiments.phases.offline import check_references
from experiments.runs.begin import DEMOS, begin
from experiments.runs.folder import check_data
from experiments.runs.run import Run
from experiments.runs.words import counts_words
from farl_jax.data import dataset, transitions
from farl_jax.data.dataset import KINDS, Dataset
from farl_jax.methods import METHODS

FILES = (".npz", ".h5", ".hdf5")
_MISSING = {
    "task": "episodes that do the task, even poorly",
    "failure": "episodes with failures, from which the world model learns to predict them",
    "recovery": "episodes in which a controller or person takes the object out of danger",
}


def bring(run: Run, sources: Mapping[str, str | None], *, overwrite: bool) -> None:
    """Read and check all kinds, then write them as the run's demonstrations.

    Args:
        run: gets the demonstrations.
        sources: kind -> Minari ID or folder, or an npz or HDF5 file.
        overwrite: put aside the run's demonstrations, once all is read.

    Raises:
        DatasetError, UserError: the run has demonstrations, or a kind is missing or invalid.
            Nothing is written.
    """
    for kind in KINDS:
        if sources[kind] is None:
            raise UserError(
                f"demos import needs --{kind}: {_MISSING[kind]}. Record some, or write a "
                "controller and use farl demos"
            )
    if not overwrite:
        begin(dataclasses.replace(run, resume=False), DEMOS)
    env = run.env(1).env
    found = {kind: _read(sources[kind], env, run) for kind in KINDS}
    for kind, data in found.items():
        check_kind(sources[kind], kind, data)
    about: dict[str, Any] = {"settings": run.settings.to_json(), "backend": env.backend}
    if run.on_host:
        about["references"] = _references(run, found)
        check_references(about["references"])
    if overwrite:
        begin(run, DEMOS, overwrite=True)
    for kind, data in found.items():
        counts = describe(data)
        own = {"task": env.name, "kind": kind, "counts": counts, "source": sources[kind]}
        dataset.save_dataset(run.path / "demos" / f"{kind}.npz", data, {**about, **own})
        run.say(f"  {counts_words(kind, counts)}")
    if not all("margin" in data for data in found.values()):
        run.say("  no failure margins: recovery is judged by failing steps only")


def _read(source: str, env: Any, run: Run) -> Dataset:
    config, path = run.settings.config.env, Path(source)
    if path.suffix in FILES:
        if not path.is_file():
            raise UserError(f"no dataset at {source}: give a file, or a Minari ID or folder")
        episodes, bounds = arrays.read(path), _bounds(env)
    else:
        episodes, *bounds = minari_sets.read(source)
    functions = getattr(env, "functions", None)
    failure_key, success_key = config.keys
    meaning = Meaning(
        env.observation_size,
        *bounds,
        failure_key=failure_key,
        success_key=success_key,
        failure=getattr(functions, "failure", None),
        margin=getattr(functions, "failure_margin", None),
    )
    return to_dataset(source, episodes, meaning)


def _bounds(env: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the environment's bounds of actions, [A] each; FailureBench's are [-1, 1]."""
    space = getattr(env, "action_space", None)
    if space is None:
        return -np.ones(env.action_size), np.ones(env.action_size)
    return space.low, space.high


def _references(run: Run, found: Mapping[str, Dataset]) -> tuple[float, float]:
    """Return the returns for scores 0 and 100: configured, or means of failure and task episodes.

    A random policy is not used, since a robot could not run it.
    """
    config = run.settings.config.env
    given = config.random_return, config.expert_return
    means = (_mean_return(found[kind]) for kind in ("failure", "task"))
    return tuple(m if g is None else g for m, g in zip(means, given, strict=True))


def _mean_return(data: Dataset) -> float:
    return float(data["reward"].sum() / dataset.num_episodes(data))


def give(folder: Path, out: Path | None, console: Console) -> None:
    """Write a run's demonstrations, and the online steps that it kept, as Minari datasets.

    Args:
        folder: the run's.
        out: a Minari store; None takes `<run>/minari`.
        console: prints where they are.

    Raises:
        DatasetError, UserError: there are no demonstrations, or they were exported before.
    """
    store = out or folder / "minari"
    check_data(folder)
    loaded = {
        kind: dataset.load_dataset(folder / "demos" / f"{kind}.npz", kind=kind) for kind in KINDS
    }
    task = str(loaded["task"][1]["task"])
    sets = [(kind, data, "demonstrations") for kind, (data, _) in loaded.items()]
    found = {method: transitions.read(folder / method / transitions.FOLDER) for method in METHODS}
    kept = [(f"{m}-online", data, "steps") for m, data in found.items() if data is not None]
    with disk_errors(store):
        for kind, data, what in (*sets, *kept):
            try:
                name = minari_sets.write(store, task, kind, data, what)
            except ValueError as error:  # Minari's, if the ID exists
                said = " ".join(str(error).split())[:200]
                raise UserError(f"{store}: {said}: give another --out") from error
            count = f"{dataset.num_episodes(data)} episodes, {len(data['episode']):,} steps"
            console.print(f"{kind}: {name}  {count}", soft_wrap=True)
    if not kept:
        console.print("no online steps: farl online --transitions N keeps some", soft_wrap=True)
    console.print(f"set {minari_sets.STORE}={store} so that Minari finds them", soft_wrap=True)
