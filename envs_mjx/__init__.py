"""FailureBench tasks on MetaWorld's Sawyer arm, in JAX, on three physics backends."""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from envs_mjx.batch import BatchEnv
from envs_mjx.bounded_push import BoundedPush
from envs_mjx.bounded_soccer import BoundedSoccer
from envs_mjx.core import Env, PhysicsState, State
from envs_mjx.errors import EnvError, closest
from envs_mjx.fragile_push_wall import FragilePushWall
from envs_mjx.obstructed_push import ObstructedPush
from envs_mjx.physics import BACKENDS
from envs_mjx.sawyer import SawyerEnv
from envs_mjx.task import Episode, Readings, Task

__all__ = [
    "BACKENDS",
    "TASKS",
    "BatchEnv",
    "Env",
    "EnvError",
    "Episode",
    "PhysicsState",
    "Readings",
    "SawyerEnv",
    "State",
    "Task",
    "make",
]

TASKS: Mapping[str, type] = MappingProxyType(
    {task.name: task for task in (BoundedPush, BoundedSoccer, FragilePushWall, ObstructedPush)}
)


def make(task: str | Task, backend: str | None = None, **overrides: Any) -> SawyerEnv:
    """Build an environment.

    Args:
      task: a name in `TASKS`, or an object that implements `Task`.
      backend: "native", "mjx" or "warp"; by default "native" on a CPU and "mjx" elsewhere.
      **overrides: fields of the task's config, such as `bounds="videos"`.

    Raises:
      EnvError: unknown task, backend or override, or a backend that cannot run here.
    """
    if backend is None:
        backend = "native" if jax.default_backend() == "cpu" else "mjx"
    if isinstance(task, str):
        if task not in TASKS:
            raise EnvError(f"unknown task {task!r}: {closest(task, TASKS)}")
        task = TASKS[task]()
    if overrides:
        task = _override(task, overrides)
    return SawyerEnv(task, backend)


def _override(task: Task, overrides: Mapping[str, Any]) -> Task:
    if not dataclasses.is_dataclass(task):
        raise EnvError(f"task {task.name!r} is no dataclass, so it takes no overrides")
    valid = [field.name for field in dataclasses.fields(task)]
    for name in overrides:
        if name not in valid:
            raise EnvError(f"task {task.name!r} has no setting {name!r}: {closest(name, valid)}")
    return dataclasses.replace(task, **overrides)
