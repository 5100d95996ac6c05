"""The stages of `farl bench gpu`: which command measures what, and how long it may take.

The order is that of their worth, since one call of 25 minutes may not reach the last ones.
"""

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

from experiments.search_path import ROOT

STAGE_SECONDS = 8 * 60.0
"""No stage may take longer."""
SEED = 3
"""A tuning seed, so that no reporting seed is seen here."""
TASK = "bounded_push"
"""Task of the whole loop, of the seeds together and of the run."""


@dataclass(frozen=True)
class Sizes:
    """How much a kit measures."""

    tasks: tuple[str, ...]
    """Of the environments' speed."""
    physics: tuple[str, ...]
    """Backends of the environments' speed."""
    backends: tuple[str, ...]
    """Backends of the loop, the seeds together and the run."""
    num_envs: tuple[int, ...]
    """Batch sizes of the environments' speed: all on the first task, the ends on the others."""
    loop_envs: tuple[int, ...]
    """Batch sizes of the whole loop."""
    seeds: tuple[int, ...]
    """Numbers of seeds together."""
    preset: str
    """Of the run."""
    seconds: float
    """Of measurement in each row."""


FULL = Sizes(
    tasks=("bounded_push", "bounded_soccer", "fragile_push_wall", "obstructed_push"),
    physics=("warp", "mjx"),
    backends=("warp", "mjx"),
    num_envs=(1024, 4096, 16384, 32768),
    loop_envs=(128, 4096),
    seeds=(8, 32),
    preset="paper",
    seconds=3.0,
)
DRY = Sizes(
    tasks=("bounded_push",),
    physics=("native", "mjx", "warp"),
    backends=("native",),
    num_envs=(32,),  # fewer make longer rollouts
    loop_envs=(4,),
    seeds=(2,),
    preset="smoke",
    seconds=0.1,
)


@dataclass(frozen=True)
class Stage:
    """One process: its command, its time, and the file it leaves."""

    name: str
    kind: str
    """tests, physics, loop, prepare, run or seeds."""
    command: tuple[str, ...]
    """`farl ...` or `pytest ...`."""
    limit: float
    """Seconds."""
    rows: Path | None = None
    """JSON file with the rows measured, or of a run with its result."""


def stages(sizes: Sizes, out: Path) -> list[Stage]:
    """All stages in their order. Each one leaves its files in the folder `out`."""
    first, others = sizes.tasks[0], sizes.tasks[1:]
    ends = tuple(dict.fromkeys((min(sizes.num_envs), max(sizes.num_envs))))
    found = [Stage("tests", "tests", _pytest(), 150.0)]
    found += [_physics(sizes, out, b, first, sizes.num_envs, 180.0) for b in sizes.physics]
    for backend in sizes.backends:
        words = ("train", "--num-envs", *sizes.loop_envs, "--cold")
        found.append(_measure(sizes, out, "loop", backend, f"loop_{backend}", words, 300.0))
    for backend in sizes.backends:
        found += _whole_run(sizes, out, backend)
    for backend, seeds in itertools.product(sizes.backends, sizes.seeds):
        words = ("train", "--num-envs", sizes.loop_envs[0], "--no-cold", "--seeds", seeds)
        name = f"seeds_{backend}_{seeds}"
        found.append(_measure(sizes, out, "seeds", backend, name, words, 150.0))
    each = itertools.product(sizes.physics, others)
    return found + [_physics(sizes, out, backend, task, ends, 120.0) for backend, task in each]


def _physics(
    sizes: Sizes, out: Path, backend: str, task: str, num_envs: tuple[int, ...], limit: float
) -> Stage:
    name = f"physics_{backend}_{task}"
    return _measure(sizes, out, "physics", backend, name, ("--num-envs", *num_envs), limit, task)


def _measure(
    sizes: Sizes,
    out: Path,
    kind: str,
    backend: str,
    name: str,
    words: tuple[object, ...],
    limit: float,
    task: str = TASK,
) -> Stage:
    """A stage of `farl bench`, whose rows are in `<out>/<name>.json`."""
    path = out / f"{name}.json"
    where = ("--task", task, "--backends", backend, "--seconds", sizes.seconds, "--out", path)
    return Stage(name, kind, _farl("bench", *words, *where), limit, path)


def _whole_run(sizes: Sizes, out: Path, backend: str) -> list[Stage]:
    """Demonstrations, offline phase and FARL's online phase, each of which goes on."""
    run = out / "runs" / backend
    seed = run / f"seed{SEED}"
    words = ("--task", TASK, "--preset", sizes.preset, "--backend", backend, "--seed", SEED)
    demos = _farl("demos", *words, "--out", run, "--resume")
    online = _farl("online", seed, "--method", "farl", "--resume")
    return [
        Stage(f"demos_{backend}", "prepare", demos, 200.0),
        Stage(f"offline_{backend}", "prepare", _farl("offline", seed, "--resume"), 240.0),
        Stage(f"run_{backend}", "run", online, STAGE_SECONDS, seed / "farl" / "result.json"),
    ]


def _farl(*words: object) -> tuple[str, ...]:
    return ("farl", *map(str, words))


def _pytest() -> tuple[str, ...]:
    root = os.path.relpath(ROOT)
    words = ("-n", "0", "-m", "gpu", "-p", "no:cacheprovider")
    return ("pytest", "-c", f"{root}/pyproject.toml", *words, f"{root}/tests/envs_mjx/physics")
