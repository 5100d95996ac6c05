"""What a sweep will cost, from stored measurements of (task, method, backend): pure functions.

A number is given only where something near was measured: the same method, backend and kind of
device. Another task's speed may stand in, and the forecast says so.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One stored measurement of a loop or of a finished run."""

    task: str
    method: str
    backend: str
    platform: str
    """Kind of device, as JAX names it: cpu, gpu, tpu."""
    seeds: int = 1
    """Runs in one program."""
    steps_per_second: float | None = None
    """Env steps of one seed, of a program of one seed."""
    over_one: float | None = None
    """Time of all seeds together over that of one."""
    memory_gb: float | None = None
    """Peak of the process: the device's memory, or the host's on a CPU."""


@dataclass(frozen=True)
class Forecast:
    """What one method's runs will take. None: unmeasured."""

    runs: int
    together: int
    """Most runs in one program."""
    seconds: float | None
    """Of all runs, one program after the other."""
    memory_gb: float | None
    """Of one process."""
    near: str
    """What was measured: this task, other tasks, or nothing."""


def of_run(row: Row, platform: str) -> Measured:
    """Return the measurement in a finished run's row, trained on a kind of device."""
    rate = row["online_steps"] / max(row["wall_seconds"], 1e-9)
    key = (row["task"], row["method"], row["backend"], platform)
    return Measured(*key, steps_per_second=rate)


def of_loop(row: Row, platform: str) -> list[Measured]:
    """Return the measurements in a row of `farl bench train`, which measures method farl."""
    key = (row["task"], "farl", row["backend"], platform)
    seeds = row.get("seeds", 1)
    memory = row["device_memory_gb"] or row["peak_memory_gb"]
    found = [Measured(*key, seeds=seeds, over_one=row.get("seeds_over_one"), memory_gb=memory)]
    return [*found, Measured(*key, steps_per_second=row["steps_per_second"])]


def forecast(
    measured: Iterable[Measured],
    key: tuple[str, str, str, str],
    groups: Sequence[int],
    steps: int,
) -> Forecast:
    """Return what runs of `steps` env steps take.

    Args:
        measured: all stored measurements.
        key: task, method, backend, platform.
        groups: numbers of runs in one program, one program after the other.
        steps: env steps of one run.
    """
    task, *rest = key
    near = [m for m in measured if [m.method, m.backend, m.platform] == rest]
    exact = [m for m in near if m.task == task]
    rates, used = _first(exact, near, lambda m: m.steps_per_second)
    over_one = {m.seeds: m.over_one for m in near if m.over_one is not None}
    seconds = None
    if rates:
        programs = sum(time_over_one(over_one, size) for size in groups)
        seconds = programs * steps / median(rates)
    names = {"exact": "this task", "near": "other tasks", "none": "nothing near"}
    together = max(groups, default=0)
    memory = memory_of([(m.seeds, m.memory_gb) for m in near if m.memory_gb], together)
    return Forecast(sum(groups), together, seconds, memory, names[used])


def time_over_one(over_one: Mapping[int, float], seeds: int) -> float:
    """Return the time of `seeds` together over that of one, from the nearest measured number.

    It is linear from one seed to that number. Without a measurement, seeds take as long as one
    after the other.
    """
    if seeds <= 1 or not over_one:
        return float(seeds)
    nearest = min(over_one, key=lambda number: abs(number - seeds))
    if nearest <= 1:
        return float(seeds)
    return 1.0 + (seeds - 1) * (over_one[nearest] - 1.0) / (nearest - 1)


def memory_of(peaks: Sequence[tuple[int, float]], seeds: int) -> float | None:
    """Return a process's GB with `seeds` together, from (seeds, GB) of measured processes.

    It is the line through the fewest and the most seeds measured, each with its largest peak. One
    number of seeds gives no line, so other numbers are unmeasured.
    """
    largest: dict[int, float] = {}
    for number, peak in peaks:
        largest[number] = max(peak, largest.get(number, 0.0))
    if seeds in largest:
        return largest[seeds]
    if len(largest) < 2:
        return None
    few, many = min(largest), max(largest)
    slope = (largest[many] - largest[few]) / (many - few)
    return max(0.0, largest[few] + (seeds - few) * slope)


def _first(exact: Sequence[Measured], near: Sequence[Measured], value: Any) -> tuple[list, str]:
    """Values of the exact measurements, else of the near ones, and which they are."""
    for name, own in (("exact", exact), ("near", near)):
        if found := [value(m) for m in own if value(m) is not None]:
            return found, name
    return [], "none"
