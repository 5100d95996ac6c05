"""A fork of a process that uses JAX lacks JAX's threads: it would wait for them for ever."""

import os

from envs_mjx.errors import EnvError

_process: list[int] = []  # the first that made an environment, and so started JAX


def is_fork() -> bool:
    """Return whether this process is a fork of one that made environments before."""
    if not _process:
        _process.append(os.getpid())
    return _process[0] != os.getpid()


def check_process() -> None:
    """Refuse to go on in such a process."""
    if is_fork():
        raise EnvError(
            "this process was forked from one that uses JAX, and would hang; start it afresh, as "
            'with gymnasium.vector.AsyncVectorEnv(..., context="spawn")'
        )
