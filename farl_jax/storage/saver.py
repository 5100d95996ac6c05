"""Checkpoints written beside training: one save at a time, in one thread, none left out.

`Saver.save` copies the state to the host and returns; its worker then does what `checkpoint.save`
does, which is where a step appears whole or not at all.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.storage import checkpoint
from farl_jax.storage.checkpoint import CheckpointError

PyTree = Any


@dataclass(frozen=True)
class Part:
    """What one run saves of a step; see `checkpoint.save`."""

    folder: Path
    items: Mapping[str, PyTree]
    metadata: Mapping[str, Any]
    score: float | None = None


class Saver:
    """Saves of one training. An error of the worker is raised by the next call, or at the end."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Start idle; `say` takes a line where a save has to wait for the one before."""
        self._say = say
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._step = 0

    def save(self, step: int, parts: Sequence[Part]) -> None:
        """Save `parts` as step `step`, in the background; what they hold may be donated at once.

        Raises:
            CheckpointError: the save before this one failed.
        """
        if self._pending is not None and not self._pending.done():
            self._say(f"  waiting for the checkpoint of step {self._step:,}")
        self.wait()
        several = jax.process_count() > 1
        copies = [(part, part.items if several else snapshot(part.items)) for part in parts]
        self._step, self._pending = step, self._worker.submit(_write, step, copies)
        if several:  # all save together: arrays of all, the same collectives in the same order
            self.wait()

    def wait(self) -> None:
        """Return when all that was given to `save` is on disk, or raise what went wrong."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            self.wait()
        except CheckpointError as late:
            if error is None:
                raise
            warnings.warn(str(late), stacklevel=2)  # `error` came first and is told
        finally:
            self._worker.shutdown()


def snapshot(tree: PyTree) -> PyTree:
    """A copy of all arrays in host memory; typed PRNG keys stay keys."""
    return jax.tree.map(_copied, tree)


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = np.array(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return np.array(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf


def _write(step: int, copies: Sequence[tuple[Part, Mapping[str, PyTree]]]) -> None:
    for part, items in copies:
        checkpoint.save(part.folder, step, items, part.metadata, score=part.score)
