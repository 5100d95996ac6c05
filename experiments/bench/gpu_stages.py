"""The stages of `farl bench gpu`: which command measures what, and how long it may take."""

import os
from dataclasses import dataclass
from pathlib import Path

from experiments.search_path import ROOT

TOTAL_SECONDS = 25 * 60.0
"""All stages together end within this time."""
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
    """Batch sizes of the environments' speed."""
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
    physics=("mjx", "warp"),
    backends=("mjx", "warp"),
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
    num_envs=(4,),
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
    """tests, physics, loop, seeds or run."""
    command: tuple[str, ...]
    """`farl ...` or `pytest ...`."""
    limit: float
    """Seconds."""
    rows: Path | None = None
    """JSON file with the rows measured."""


def stages(sizes: Sizes, out: Path) -> list[Stage]:
    """All stages in their order. Each one leaves its files in the folder `out`."""
    found = [Stage("tests", "tests", _pytest(), 120.0)]

    def measure(kind: str, name: str, limit: float, *words: object) -> None:
        path = out / f"{name}.json"
        line = _farl("bench", *words, "--seconds", sizes.seconds, "--out", path)
        found.append(Stage(name, kind, line, limit, path))

    for backend in sizes.physics:
        for task in sizes.tasks:
            words = ("--task", task, "--backends", backend, "--num-envs", *sizes.num_envs)
            measure("physics", f"physics_{backend}_{task}", 40.0, *words)
    for backend in sizes.backends:
        words = ("train", "--task", TASK, "--backends", backend, "--num-envs", *sizes.loop_envs)
        measure("loop", f"loop_{backend}", 110.0, *words, "--cold")
    for backend in sizes.backends:
        for seeds in sizes.seeds:
            words = ("train", "--task", TASK, "--backends", backend, "--seeds", seeds)
            words += ("--num-envs", sizes.loop_envs[0], "--no-cold")
            measure("seeds", f"seeds_{backend}_{seeds}", 60.0, *words)
    for backend in sizes.backends:
        run = out / "runs" / backend
        words = ("--task", TASK, "--preset", sizes.preset, "--backend", backend)
        line = _farl("run", *words, "--seed", SEED, "--out", run, "--resume")
        found.append(Stage(f"run_{backend}", "run", line, 280.0))
    return found


def results_of(out: Path, backend: str) -> list[Path]:
    """Files of the finished methods of a run stage."""
    return sorted((out / "runs" / backend / f"seed{SEED}").glob("*/result.json"))


def _farl(*words: object) -> tuple[str, ...]:
    return ("farl", *map(str, words))


def _pytest() -> tuple[str, ...]:
    root = os.path.relpath(ROOT)
    words = ("-n", "0", "-m", "gpu", "-p", "no:cacheprovider")
    return ("pytest", "-c", f"{root}/pyproject.toml", *words, f"{root}/tests/envs_mjx/physics")
