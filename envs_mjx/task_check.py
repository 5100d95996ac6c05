"""Checks of a user's task: its constants, and its functions by one trace."""

import math
import numbers
import typing
from typing import Any

import jax
import jax.numpy as jnp

from envs_mjx.errors import EnvError, shown
from envs_mjx.robot_env import RobotEnv
from envs_mjx.tasks.task import Task

_LONGEST = 200  # most characters of a name that fit into tables


def check_constants(task: Any, path: str) -> None:
    """Refuse a task whose constants have a wrong type or range (see `Task`).

    Raises:
      EnvError: one line that names the constant.
    """
    for name, kind in _constants().items():
        value = getattr(task, name)
        count = len(typing.get_args(kind)) or 1
        if kind is str:
            good, what = _is_name(value), f"printable text of 1 to {_LONGEST} characters"
        elif kind is int:
            good, what = (
                _is_number(value, numbers.Integral) and 0 < value < 2**31,
                "an integer of at least 1",
            )
        elif kind is float or count > 1:
            values = tuple(value) if count > 1 and hasattr(value, "__iter__") else (value,)
            good = len(values) == count and all(_is_number(v, numbers.Real) for v in values)
            what = f"{count} finite numbers" if count > 1 else "a finite number"
        else:
            good, what = isinstance(value, kind), f"of type {kind.__name__}"
        if not good:
            raise EnvError(f"{shown(path)}: {name} must be {what}; got {shown(str(value))}")
    if task.expert_return <= task.random_return:
        raise EnvError(f"{shown(path)}: expert_return must be above random_return")


def _constants() -> dict[str, Any]:
    """Name and type of every constant of a task."""
    own = {name: typing.get_args(kind)[0] for name, kind in typing.get_type_hints(Task).items()}
    read = {n: v.fget for n, v in vars(Task).items() if isinstance(v, property)}
    return own | {name: typing.get_type_hints(get)["return"] for name, get in read.items()}


def check_functions(env: RobotEnv, path: str) -> None:
    """Trace reset, step and the scripted controllers; nothing is compiled or run.

    Raises:
      EnvError: a function returns a wrong type or shape; one line that names it.
      Exception: from the task's own code.
    """
    key, task = jax.random.key(0), env.task
    position = jax.ShapeDtypeStruct((2,), jnp.float32)
    _expect(path, "place", jax.eval_shape(task.place, key), (position, position))
    state = jax.eval_shape(env.reset, key)
    action = jax.ShapeDtypeStruct((env.action_size,), jnp.float32)
    _expect(path, "failure_margin", state.failure_margin, jax.ShapeDtypeStruct((), jnp.float32))
    after = jax.eval_shape(env.step, state, action)
    for name, field in (("success", "success"), ("reward", "base_reward")):
        _expect(path, name, getattr(after, field), getattr(state, field))
    traits = jax.eval_shape(task.careless_traits, key)
    for name, given in (
        ("expert", (state.obs,)),
        ("careless", (state.obs, traits)),
        ("recovery", (state.obs,)),
    ):
        _expect(path, name, jax.eval_shape(getattr(task, name), *given), action)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LONGEST


def _is_number(value: Any, kind: type) -> bool:
    good = isinstance(value, kind) and not isinstance(value, bool)
    return good and math.isfinite(float(value))


def _expect(path: str, name: str, found: Any, wanted: Any) -> None:
    told, right = _shapes(found), _shapes(wanted)
    if told != right:
        raise EnvError(f"{shown(path)}: {name} must return {right}; it returns {told}")


def _shapes(tree: Any) -> str:
    """Types and shapes of a tree's arrays, in words."""
    leaves = jax.tree.leaves(tree, is_leaf=lambda leaf: leaf is None)
    return " and ".join(
        "None" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}" for leaf in leaves
    )
