"""The environment that a run is on, by its name in the settings.

A name is a FailureBench task, an import path of a task ("module:Class"), or an environment of
Gymnasium: "gymnasium:ID", or "env:module:function" for a function that returns one.
"""

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

from experiments.errors import UserError
from farl_jax.config import EnvConfig, OnlineConfig
from farl_jax.schema import shown

DEFAULT_TASK = "bounded_push"
REGISTERED, FUNCTION = "gymnasium:", "env:"


def is_own_environment(task: str) -> bool:
    """Whether a run's task is an environment of Gymnasium, whose steps happen on the host."""
    return task.startswith((REGISTERED, FUNCTION))


def task_of(env: str) -> str:
    """Return a run's task for what `--env` names: gymnasium:ID or module:function.

    Raises:
        UserError: it is neither.
    """
    if is_own_environment(env):
        return env
    if ":" not in env:
        raise UserError(f"--env {shown(env)}: give gymnasium:ID, or module:function of your own")
    return FUNCTION + env


def named(task: str) -> str:
    """The option that names a run's task on a command line, and its value."""
    return f"--env {task.removeprefix(FUNCTION)}" if is_own_environment(task) else f"--task {task}"


@cache
def environment(task: str, backend: str | None, config: EnvConfig, shift: int | None = None) -> Any:
    """One environment for the whole process: `RobotEnv`, or `envs_gym.HostTask`.

    `shift` is the seed of shifted dynamics (`envs_mjx.shift`); None keeps the nominal ones.

    Raises:
        EnvError, HostError: there is none, or it cannot be learnt on; one line.
    """
    from envs_mjx import load_function, make

    if not is_own_environment(task):
        return make(task, backend, shift=shift)
    if shift is not None:
        raise UserError(f"{named(task)}: online.dynamics varies a simulator of ours: leave it out")
    if backend is not None:
        raise UserError(f"--backend {backend} goes with --task alone: leave it out")
    try:
        import envs_gym
    except ModuleNotFoundError as error:
        raise UserError(f"--env needs {error.name}: pip install 'farl-jax[gymnasium]'") from error
    functions = envs_gym.Functions()
    if task.startswith(REGISTERED):
        maker = envs_gym.registered(task.removeprefix(REGISTERED))
    else:
        module, function = load_function(task.removeprefix(FUNCTION))
        functions = envs_gym.find_functions(module)
        maker = _called(function)
    signals = envs_gym.Signals(*config.keys)
    try:
        return envs_gym.HostTask(task, maker, functions, signals, config.episode_limit)
    except envs_gym.HostError as error:
        raise UserError(f"{named(task)}: {error}") from error


def check_sharing(task: str, online: OnlineConfig, seeds: int, num_devices: int) -> None:
    """Refuse seeds that cannot train in step, or devices that cannot share environments.

    Raises:
        UserError: a user's own steps happen on the host, once each and in order; or each seed has
            a robot or a number of steps of its own.
    """
    if is_own_environment(task) and (seeds > 1 or num_devices > 1):
        way = "--together" if seeds > 1 else "--devices"
        raise UserError(
            f"{named(task)}: its steps happen once, on the host, so that neither seeds nor devices "
            f"can share them: leave {way} out"
        )
    own = {
        "online.episodes": online.episodes is not None,
        "online.whole_episodes": online.whole_episodes > 0,
        "online.dynamics": online.dynamics == "shifted",
    }
    if seeds > 1 and (name := next((n for n, given in own.items() if given), None)):
        raise UserError(
            f"{name} gives each seed a robot or a number of steps of its own, so that seeds cannot "
            "train in step: leave --together out"
        )


def check_budget(online: OnlineConfig, limit: int) -> None:
    """Refuse a budget of episodes that rollouts, or `env_steps`, cannot hold.

    `limit` is the steps of the longest episode.

    Raises:
        UserError: `online.rollout` or `online.env_steps` is too small.
    """
    whole, least = online.whole_episodes, online.whole_episodes * limit
    if online.rollout < least:
        raise UserError(
            f"online.rollout must be at least online.whole_episodes ({whole}) x the episode's "
            f"{limit} steps ({least:,}); got {online.rollout}"
        )
    rounds = -(-(online.episodes or 0) // online.num_envs)
    if online.env_steps < (least := rounds * online.num_envs * limit):
        raise UserError(
            f"online.env_steps must be at least {least:,}, so that online.episodes "
            f"({online.episodes}) of {limit} steps fit; got {online.env_steps:,}"
        )


def batch(env: Any, num_envs: int, references: tuple[float, float] | None = None) -> Any:
    """`num_envs` copies of an environment, as the learner wants them."""
    if env.backend == "gymnasium":
        from envs_gym import HostBatch

        return HostBatch(env, num_envs, references or (float("nan"),) * 2)
    from envs_mjx import BatchEnv

    return BatchEnv(env, num_envs)


def _called(function: Callable[..., Any]) -> Callable[[int], Any]:
    """A user's function, called with `num_envs` where it has such a parameter."""
    try:
        wants_number = "num_envs" in inspect.signature(function).parameters
    except (TypeError, ValueError):
        wants_number = False
    return lambda num_envs: function(num_envs=num_envs) if wants_number else function()
