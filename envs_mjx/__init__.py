"""FailureBench tasks on MetaWorld's Sawyer arm, in JAX, on three physics backends."""

import dataclasses
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from envs_mjx import opengl  # noqa: F401  before all others, since it imports MuJoCo

# isort: split
from envs_mjx import forks, task_check
from envs_mjx.batch import BatchEnv
from envs_mjx.core import Env, PhysicsState, State
from envs_mjx.errors import EnvError, closest, shown
from envs_mjx.import_path import blaming, load_class, load_function
from envs_mjx.physics.backends import BACKENDS
from envs_mjx.sawyer import SawyerEnv
from envs_mjx.tasks.bounded_push import BoundedPush
from envs_mjx.tasks.bounded_soccer import BoundedSoccer
from envs_mjx.tasks.fragile_push_wall import FragilePushWall
from envs_mjx.tasks.obstructed_push import ObstructedPush
from envs_mjx.tasks.task import Episode, Readings, Task

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
    "load_function",
    "make",
    "task_class",
]

TASKS: Mapping[str, type] = MappingProxyType(
    {task.name: task for task in (BoundedPush, BoundedSoccer, FragilePushWall, ObstructedPush)}
)
for _name in TASKS:  # import paths in settings of runs, and in tasks of users' own
    sys.modules[f"{__name__}.{_name}"] = sys.modules[f"{__name__}.tasks.{_name}"]


def make(task: str | Task, backend: str | None = None, **overrides: Any) -> SawyerEnv:
    """Build an environment.

    Args:
      task: a name in `TASKS`, an import path "module:Class" of a task of your own, or an object
        that implements `Task`.
      backend: "native", "mjx" or "warp"; by default "native" on a CPU and "mjx" elsewhere.
      **overrides: fields of the task's config, such as `bounds="videos"`.

    Raises:
      EnvError: unknown task, backend or override, or a backend that cannot run here.
    """
    if backend is None:
        backend = "native" if jax.default_backend() == "cpu" else "mjx"
    if not isinstance(task, str):
        _check_parts(task, shown(str(task)))
        return SawyerEnv(_override(task, overrides), backend)
    kind = task_class(task)
    if ":" not in task:
        return SawyerEnv(_override(kind(), overrides), backend)
    with blaming(task):
        own = _override(kind(), overrides)
        task_check.check_constants(own, task)
        env = SawyerEnv(own, backend)
        if not forks.is_fork():
            task_check.check_functions(env, task)
        return env


def task_class(name: str) -> type:
    """Return the class of a task in `TASKS`, or the one that "module:Class" names.

    Raises:
      EnvError: there is none, it is no task, or its module cannot be imported.
    """
    if ":" not in name:
        if name not in TASKS:
            raise EnvError(f"unknown task {shown(name)}: {closest(name, TASKS)}")
        return TASKS[name]
    found = load_class(name)
    with blaming(name):
        _check_parts(found, shown(name))
    return found


def _check_parts(task: Any, name: str) -> None:
    parts = [*Task.__annotations__, *(n for n, v in vars(Task).items() if callable(v))]
    missing = [part for part in parts if part[0] != "_" and not hasattr(task, part)]
    if missing:
        raise EnvError(f"{name} is no task: it has no {sorted(missing)[0]!r}; see envs_mjx.Task")


def _override(task: Task, overrides: Mapping[str, Any]) -> Task:
    if not overrides:
        return task
    if not dataclasses.is_dataclass(task):
        raise EnvError(f"task {task.name!r} is no dataclass, so it takes no overrides")
    valid = [field.name for field in dataclasses.fields(task)]
    for name in overrides:
        if name not in valid:
            raise EnvError(f"task {task.name!r} has no setting {name!r}: {closest(name, valid)}")
    try:
        return dataclasses.replace(task, **overrides)
    except TypeError as error:
        raise EnvError(f"task {task.name!r} cannot have {overrides}: {error}") from error
