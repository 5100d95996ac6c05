"""A check for forks: a fork of a process that uses JAX lacks JAX's threads and hangs."""

import os

from envs_mjx.errors import EnvError

_process: list[int] = []  # the first that made an environment, and so started JAX


def is_fork() -> bool:
    """Return whether this process was forked from one that had made environments."""
    if not _process:
        _process.append(os.getpid())
    return _process[0] != os.getpid()


def check_process() -> None:
    """Raise an EnvError in such a process."""
    if is_fork():
        raise EnvError(
            "this process was forked from one that uses JAX and would hang; spawn it instead, "
            'for example with gymnasium.vector.AsyncVectorEnv(..., context="spawn")'
        )
