"""A user's environment: its facts, how to make copies of it, and its controllers."""

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np

from envs_gym.errors import HostError, blame
from envs_gym.functions import Functions, by_row
from envs_gym.host import Host, Signals
from envs_gym.rows import SingleRows, VectorRows
from envs_gym.spaces import action_scale, observation_size

Maker = Callable[..., gymnasium.Env | gymnasium.vector.VectorEnv]
FACTS = (
    *("name", "backend", "observation_size", "action_size", "episode_limit"),
    *("success_reward", "danger_margin", "danger_lead", "safe_margin", "compiler_options"),
)
"""Attributes of `HostTask` that its batches share."""


def registered(name: str) -> Maker:
    """Return a maker of an environment in Gymnasium's registry: "ID" or "package:ID"."""

    def made(num_envs: int) -> gymnasium.Env:
        try:
            return gymnasium.make(name, disable_env_checker=True)
        except (gymnasium.error.UnregisteredEnv, ModuleNotFoundError) as error:
            said = " ".join(str(error).split())
            raise HostError(
                f"{said}; if a package registers it, give gymnasium:PACKAGE:ID"
            ) from error

    return made


class HostTask:
    """A user's environment, with the attributes that the learner reads.

    `host` makes the environments of one size once and shares them, since a robot exists once. The
    controllers map one observation [D] to one action [A] in [-1, 1] and may be vmapped.
    """

    backend = "gymnasium"
    success_reward = None
    compiler_options: Mapping[str, bool] = MappingProxyType({})

    def __init__(
        self,
        name: str,
        make: Maker,
        functions: Functions = Functions(),  # noqa: B008  a NamedTuple
        signals: Signals = Signals(),  # noqa: B008
        episode_limit: int | None = None,
    ) -> None:
        """Make one environment and read its facts.

        Args:
            name: for messages.
            make: () -> gymnasium.Env, or (num_envs) -> VectorEnv where it has such a parameter.
            functions: the user's functions.
            signals: keys of `info`.
            episode_limit: longest episode in steps; None takes the environment's spec.

        Raises:
            HostError: it cannot be made, or not be used for training.
        """
        self.name, self.functions, self._make, self._signals = name, functions, make, signals
        first = self._made(1)
        space = getattr(first, "single_observation_space", first.observation_space)
        actions = getattr(first, "single_action_space", first.action_space)
        self.observation_size, self.scale = observation_size(space), action_scale(actions)
        self.action_size = len(self.scale.half)
        self.observation_space, self.action_space = space, actions
        self.episode_limit = episode_limit or _spec_limit(first)
        self.danger_margin, self.safe_margin = functions.danger_margin, functions.safe_margin
        self.danger_lead = functions.danger_lead
        self._first: list[Any] = [first]
        self.host = lru_cache(None)(self._host)

    def _host(self, num_envs: int) -> Host:
        """Make the environments of one size."""
        spare = self._first.pop() if self._first else None
        one = spare if spare is not None else self._made(num_envs)
        if isinstance(one, gymnasium.vector.VectorEnv):
            if one.num_envs != num_envs:
                one = self._made(num_envs)
            if one.num_envs != num_envs:
                raise HostError(
                    f"its VectorEnv holds {one.num_envs} environments, {num_envs} are wanted: give "
                    "its function a parameter num_envs, or set online.num_envs, "
                    "online.eval_episodes and demos.num_envs to its number"
                )
            rows: SingleRows | VectorRows = VectorRows(one)
        else:
            rows = SingleRows([one, *(self._made(1) for _ in range(num_envs - 1))])
        for space in (own.observation_space for own in getattr(rows, "envs", ())):
            if observation_size(space) != self.observation_size:
                raise HostError("its environments differ in the size of their observations")
        return Host(rows, self.scale, self.functions, self._signals, self.episode_limit)

    def _made(self, num_envs: int) -> gymnasium.Env | gymnasium.vector.VectorEnv:
        try:
            made = self._make(num_envs)
        except HostError:
            raise
        except Exception as error:
            raise blame("making it", error) from error
        if not isinstance(made, gymnasium.Env | gymnasium.vector.VectorEnv):
            raise HostError(
                f"its function returned {type(made).__name__}, not a gymnasium.Env or VectorEnv"
            )
        return made

    def has(self, controller: str) -> bool:
        """Whether the user's module has this controller: expert, careless or recovery."""
        return getattr(self.functions, controller) is not None

    def expert(self, obs: jax.Array) -> jax.Array:
        """Return the expert's action [A] at an observation [D]."""
        return self._controlled("expert", obs)

    def careless(self, obs: jax.Array, trait: jax.Array) -> jax.Array:
        """Return a careless operator's action [A]; the trait [] in [0, 1) selects the operator."""
        return self._controlled("careless", obs, trait)

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the recovery controller's action: [D] -> [A]."""
        return self._controlled("recovery", obs)

    def careless_traits(self, key: jax.Array) -> jax.Array:
        """Draw a careless operator: a number [] in [0, 1)."""
        return jax.random.uniform(key)

    def _controlled(self, name: str, *inputs: jax.Array) -> jax.Array:
        if not self.has(name):
            raise HostError(
                f"{self.name} has no controller {name!r}: write a function {name} in its module, "
                "or import demonstrations with farl demos import"
            )
        answer = jax.ShapeDtypeStruct((self.action_size,), jnp.float32)
        ask = partial(self._ask, name)
        return jax.pure_callback(ask, answer, *inputs, vmap_method="broadcast_all")

    def _ask(self, name: str, obs: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        """Call a controller on a batch [..., D]: actions [..., A] in [-1, 1]."""
        obs = np.asarray(obs)
        flat = [np.asarray(own).reshape(-1, *own.shape[obs.ndim - 1 :]) for own in (obs, *rest)]
        answers = by_row(getattr(self.functions, name), name, *flat)
        try:
            action = np.asarray(answers, np.float32).reshape(*obs.shape[:-1], self.action_size)
        except ValueError as error:
            raise HostError(
                f"its function {name} must return an action of {self.action_size} numbers"
            ) from error
        if not np.isfinite(action).all():
            raise HostError(f"its function {name} returned an action that is not finite")
        return self.scale.from_env(action).astype(np.float32)


def _spec_limit(env: Any) -> int:
    """Return the longest episode by the environment's spec."""
    limit = getattr(getattr(env, "spec", None), "max_episode_steps", None)
    if not limit:
        raise HostError("its episodes have no limit: give --env.episode-limit STEPS")
    return int(limit)
