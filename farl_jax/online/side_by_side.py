"""Compiled programs at once, each launched from a thread of its own.

XLA runs what one thread launches one after the other. On a CPU it shares a program's small
operations among the cores, and loses more by handing them over than it gains.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from threading import Event
from typing import Any

import jax

from farl_jax import devices


def pays() -> bool:
    """Whether programs should run side by side here: on a CPU of two cores at least."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return jax.default_backend() == "cpu" and (cores or 1) > 1


def possible(leaf: jax.Array) -> bool:
    """Whether threads may run what takes `leaf`: not while tracing, nor on a mesh of devices."""
    return not (devices.active() or isinstance(leaf, jax.core.Tracer))


class SideBySide:
    """A few threads, and what they are asked to run at once."""

    def __init__(self, threads: int) -> None:
        """Start no thread before it is needed."""
        self._workers = ThreadPoolExecutor(threads, "side_by_side")
        self._compiled = Event()

    def run(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Return the results of all calls, in order; the first error is raised.

        The first time they run in turn: two threads would both compile a program that they share.
        """
        whole = [lambda call=call: jax.block_until_ready(call()) for call in calls]
        futures = []
        for call in whole:
            futures.append(self._workers.submit(call))
            if not self._compiled.is_set():
                wait(futures)
        self._compiled.set()
        return [future.result() for future in futures]
