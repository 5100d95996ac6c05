"""The host's side of N environments: stateful, in NumPy, one call a step."""

from typing import Any, NamedTuple

import numpy as np

from envs_gym.errors import HostError
from envs_gym.functions import Functions, by_row
from envs_gym.rows import Outcome, SingleRows, VectorRows
from envs_gym.spaces import ActionScale

FAILURE, COST = "failure", "cost"
SUCCESSES = ("success", "is_success")


class Signals(NamedTuple):
    """Keys of `info` for failure and success; None looks for the usual ones."""

    failure: str | None = None
    success: str | None = None

    def failed(self, info: dict[str, Any]) -> bool:
        """Return C(s, a): the named key or `failure` is true, or `cost` is above 0.

        Raises:
            HostError: `info` has no such key.
        """
        name = self.failure or next((key for key in (FAILURE, COST) if key in info), None)
        if name is None or name not in info:
            wanted = repr(name) if name else "'failure' or 'cost'"
            raise HostError(
                f"the step's info has no {wanted}, only {_listed(info)}: name the key of "
                "failure with --env.failure-key, or write a function failure(obs, info)"
            )
        return _number(info[name], name) > 0

    def succeeded(self, info: dict[str, Any]) -> bool:
        """Return whether the named key, `success` or `is_success` is true; False without one.

        Raises:
            HostError: `info` lacks the named key.
        """
        name = self.success or next((key for key in SUCCESSES if key in info), None)
        if name is None:
            return False
        if name not in info:
            raise HostError(
                f"the step's info has no {name!r}, only {_listed(info)}: name another "
                "key with --env.success-key"
            )
        return _number(info[name], name) > 0


class Step(NamedTuple):
    """The outcome of `Host.step`; `stale` rows were not stepped."""

    obs: np.ndarray  # [N, D] f32 after the step, before any restart
    following: np.ndarray  # [N, D] f32 to act on next
    reward: np.ndarray  # [N] f32
    failure: np.ndarray  # [N] bool
    success: np.ndarray  # [N] bool
    terminated: np.ndarray  # [N] bool
    truncated: np.ndarray  # [N] bool
    stale: np.ndarray  # [N] bool
    margin: np.ndarray  # [N] f32 of `obs`, 0 without a failure_margin
    following_margin: np.ndarray  # [N] f32
    ticket: np.ndarray  # [N] i32


class Host:
    """N environments and their current episodes.

    A ticket numbers the resets of all rows. A state with an older ticket belongs to lost episodes:
    a checkpoint was restored, or another user reset the environments. Its step restarts all rows
    and marks them stale.
    """

    def __init__(
        self,
        rows: SingleRows | VectorRows,
        scale: ActionScale,
        functions: Functions,
        signals: Signals,
        limit: int,
    ) -> None:
        """Wrap N environments; `limit` is the longest episode in steps."""
        self.rows, self.scale, self.limit = rows, scale, limit
        self.functions, self.signals = functions, signals
        self.ticket, self.count = 0, np.zeros(0, np.int64)

    def reset(self, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Start all episodes: seeds [N] -> observations [N, D], margins [N], ticket [N]."""
        obs = self._finite(self.rows.reset(np.asarray(seeds)), "observation after its reset")
        self.ticket += 1
        self.count = np.zeros(len(obs), np.int64)
        return obs, self._margin(obs), np.full(len(obs), self.ticket, np.int32)

    def step(
        self, ticket: np.ndarray, obs: np.ndarray, action: np.ndarray, seeds: np.ndarray
    ) -> Step:
        """Step all rows by actions [N, A] in [-1, 1]; `obs` [N, D] are the current ones."""
        ticket, obs, action = (np.asarray(own) for own in (ticket, obs, action))
        seeds = np.asarray(seeds)
        if (ticket != self.ticket).any():
            return self._restart(obs, seeds)
        self._finite(action, "action; the policy's own")
        outcome, done, following = self.rows.step(self.scale.to_env(action), seeds, self._late)
        self._finite(outcome.obs, "observation")
        self._finite(outcome.reward, "reward")
        self._finite(following, "observation after its reset")
        self.count[done] = 0
        ended = outcome.terminated
        return Step(
            obs=outcome.obs,
            following=following,
            reward=outcome.reward,
            failure=self._flags(outcome, "failure"),
            success=self._flags(outcome, "success"),
            terminated=ended,
            truncated=done & ~ended,
            stale=np.zeros(len(obs), bool),
            margin=self._margin(outcome.obs),
            following_margin=self._margin(following),
            ticket=ticket,
        )

    def _late(self, done: np.ndarray) -> np.ndarray:
        self.count += 1
        return done | (self.count >= self.limit)

    def _restart(self, obs: np.ndarray, seeds: np.ndarray) -> Step:
        following, margin, ticket = self.reset(seeds)
        no, yes = np.zeros(len(obs), bool), np.ones(len(obs), bool)
        none, before = np.zeros(len(obs), np.float32), self._margin(obs)
        return Step(obs, following, none, no, no, no, yes, yes, before, margin, ticket)

    def _flags(self, outcome: Outcome, name: str) -> np.ndarray:
        """Failure or success of each row, from the user's function or else from info."""
        own = getattr(self.functions, name)
        if own is not None:
            infos = np.empty(len(outcome.infos), object)
            infos[:] = outcome.infos
            return np.asarray([bool(v) for v in by_row(own, name, outcome.obs, infos)])
        read = self.signals.failed if name == "failure" else self.signals.succeeded
        return np.asarray([read(info) for info in outcome.infos])

    def _margin(self, obs: np.ndarray) -> np.ndarray:
        if not self.functions.has_margin:
            return np.zeros(len(obs), np.float32)
        found = by_row(self.functions.failure_margin, "failure_margin", obs)
        return self._finite(np.asarray(found, np.float32).reshape(len(obs)), "failure_margin")

    @staticmethod
    def _finite(values: np.ndarray, what: str) -> np.ndarray:
        if not np.isfinite(values).all():
            place = ", ".join(map(str, np.argwhere(~np.isfinite(values))[0][1:]))
            where = f" at index {place}" if place else ""
            raise HostError(f"the environment's {what}{where} is not finite")
        return values


def _number(value: Any, name: str) -> float:
    try:
        return float(np.asarray(value).reshape(()))
    except (TypeError, ValueError) as error:
        raise HostError(f"the step's info has {name!r}, which is not a number") from error


def _listed(info: dict[str, Any]) -> str:
    names = ", ".join(map(repr, sorted(map(str, info))))
    return (names if len(names) <= 200 else f"{names[:197]}...") or "nothing"
