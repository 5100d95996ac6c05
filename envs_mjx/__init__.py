"""FailureBench tasks on two robots, in JAX, on three physics backends."""

import dataclasses
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax

from envs_mjx import opengl  # noqa: F401  first, since it imports MuJoCo

# isort: split
from envs_mjx import forks, task_check
from envs_mjx.batch import BatchEnv
from envs_mjx.core import Env, PhysicsState, State
from envs_mjx.errors import EnvError, closest, shown
from envs_mjx.import_path import blaming, load_class, load_function
from envs_mjx.physics.backends import BACKENDS, Control
from envs_mjx.physics.defaults import defaults_of
from envs_mjx.physics.scene import SceneParts
from envs_mjx.robot_env import RobotEnv
from envs_mjx.robots.robot import Camera, Robot
from envs_mjx.shift import Shift, draw_shift
from envs_mjx.tasks.bounded_push import BoundedPush
from envs_mjx.tasks.bounded_soccer import BoundedSoccer
from envs_mjx.tasks.fragile_push_wall import FragilePushWall
from envs_mjx.tasks.franka_bounded_soccer import FrankaBoundedSoccer
from envs_mjx.tasks.franka_disturbed_push import FrankaDisturbedPush
from envs_mjx.tasks.franka_fragile_push_wall import FrankaFragilePushWall
from envs_mjx.tasks.obstructed_push import ObstructedPush
from envs_mjx.tasks.task import Disturbed, Episode, Readings, Task

__all__ = [
    "BACKENDS",
    "SUITES",
    "TASKS",
    "BatchEnv",
    "BoundedPush",
    "BoundedSoccer",
    "Camera",
    "Control",
    "Disturbed",
    "Env",
    "EnvError",
    "Episode",
    "FragilePushWall",
    "FrankaBoundedSoccer",
    "FrankaDisturbedPush",
    "FrankaFragilePushWall",
    "ObstructedPush",
    "PhysicsState",
    "Readings",
    "Robot",
    "RobotEnv",
    "SceneParts",
    "Shift",
    "State",
    "Task",
    "load_function",
    "make",
    "task_class",
    "tasks_named",
]

_SUITES = {
    "failurebench": (BoundedPush, BoundedSoccer, FragilePushWall, ObstructedPush),
    "franka": (FrankaBoundedSoccer, FrankaDisturbedPush, FrankaFragilePushWall),
}
TASKS: Mapping[str, type] = MappingProxyType(
    {task.name: task for tasks in _SUITES.values() for task in tasks}
)
SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {suite: tuple(task.name for task in tasks) for suite, tasks in _SUITES.items()}
)
"""Groups of tasks: four of FailureBench, three of the paper's real robot."""
for _name in TASKS:  # import paths used in runs' settings and in users' tasks
    sys.modules[f"{__name__}.{_name}"] = sys.modules[f"{__name__}.tasks.{_name}"]


def make(
    task: str | Task, backend: str | None = None, *, shift: int | None = None, **overrides: Any
) -> RobotEnv:
    """Build an environment.

    Args:
      task: a name in `TASKS`, an import path "module:Class" of a task of your own, or an object
        that implements `Task`.
      backend: "native", "mjx" or "warp"; by default "native" on a CPU and "mjx" elsewhere.
      shift: seed of shifted dynamics (`envs_mjx.shift`), a stand-in for a real robot; None keeps
        the nominal ones.
      **overrides: fields of the task's config, such as `bounds="videos"`.

    Raises:
      EnvError: the task, backend or override is unknown, or the backend cannot run here.
    """
    if backend is None:
        backend = defaults_of(jax.default_backend()).backend
    shifted = None if shift is None else draw_shift(shift)
    if not isinstance(task, str):
        _check_parts(task, shown(str(task)))
        return RobotEnv(_override(task, overrides), backend, shift=shifted)
    kind = task_class(task)
    if ":" not in task:
        return RobotEnv(_override(kind(), overrides), backend, shift=shifted)
    with blaming(task):
        own = _override(kind(), overrides)
        task_check.check_constants(own, task)
        env = RobotEnv(own, backend, shift=shifted)
        if not forks.is_fork():
            task_check.check_functions(env, task)
        return env


def task_class(name: str) -> type:
    """Return the class of a task in `TASKS`, or the one that "module:Class" names.

    Raises:
      EnvError: it does not exist, is not a task, or its module cannot be imported.
    """
    if ":" not in name:
        if name not in TASKS:
            raise EnvError(f"unknown task {shown(name)}: {closest(name, TASKS)}")
        return TASKS[name]
    found = load_class(name)
    with blaming(name):
        _check_parts(found, shown(name))
    return found


def tasks_named(name: str) -> tuple[str, ...]:
    """Return the tasks of `name`: "all", a suite or one task."""
    return tuple(TASKS) if name == "all" else SUITES.get(name, (name,))


def _check_parts(task: Any, name: str) -> None:
    own = [n for n, v in vars(Task).items() if callable(v) or isinstance(v, property)]
    parts = [*Task.__annotations__, *own]
    missing = [part for part in parts if part[0] != "_" and not hasattr(task, part)]
    if missing:
        raise EnvError(f"{name} is not a task: it has no {sorted(missing)[0]!r}; see envs_mjx.Task")


def _override(task: Task, overrides: Mapping[str, Any]) -> Task:
    if not overrides:
        return task
    if not dataclasses.is_dataclass(task) or isinstance(task, type):
        raise EnvError(f"task {task.name!r} takes no overrides: make it a dataclass")
    valid = [field.name for field in dataclasses.fields(task)]
    for name in overrides:
        if name not in valid:
            raise EnvError(f"task {task.name!r} has no setting {name!r}: {closest(name, valid)}")
    try:
        return dataclasses.replace(task, **overrides)
    except TypeError as error:
        raise EnvError(f"task {task.name!r} does not accept {overrides}: {error}") from error
