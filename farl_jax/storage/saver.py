"""Checkpoints written during training: in one thread, one save at a time, none skipped.

`Saver.save` copies the state to the host and returns. Its worker then calls `checkpoint.save`.
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
    """One run's part of a step. See `checkpoint.save`."""

    folder: Path
    items: Mapping[str, PyTree]
    metadata: Mapping[str, Any]
    score: float | None = None


class Saver:
    """Saves of one training. The next call, or the end, raises an error of the worker."""

    def __init__(self, say: Callable[[str], None]) -> None:
        """Start idle. `say` prints a line if a save waits for the one before."""
        self._say = say
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._step = 0

    def save(self, step: int, parts: Sequence[Part]) -> None:
        """Save `parts` as step `step`, in the background. Their arrays may be donated at once.

        Raises:
            CheckpointError: the save before this one failed.
        """
        if self._pending is not None and not self._pending.done():
            self._say(f"  waiting for the checkpoint of step {self._step:,}")
        self.wait()
        several = jax.process_count() > 1
        copies = [(part, part.items if several else snapshot(part.items)) for part in parts]
        self._step, self._pending = step, self._worker.submit(_write, step, copies)
        if several:  # all processes save together, with the same collectives in order
            self.wait()

    def wait(self) -> None:
        """Wait until everything is on disk, or raise the error."""
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
            warnings.warn(str(late), stacklevel=2)  # `error` came first and is raised
        finally:
            self._worker.shutdown()


def snapshot(tree: PyTree) -> PyTree:
    """Copy all arrays to host memory. Typed PRNG keys stay keys."""
    return jax.tree.map(_copied, tree)


def _copied(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = np.array(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaf))
    return np.array(leaf) if isinstance(leaf, jax.Array | np.ndarray) else leaf


def _write(step: int, copies: Sequence[tuple[Part, Mapping[str, PyTree]]]) -> None:
    for part, items in copies:
        checkpoint.save(part.folder, step, items, part.metadata, score=part.score)
