"""Typed records that all parts share. Axes: T time, N environments, E ensemble."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
from flax import struct

Params = Mapping[str, Any]


class BatchedEnv(Protocol):
    """N environments that reset themselves.

    A state is a typed record, batched on axis 0, with at least the fields obs, reward, base_reward,
    success, failure, failure_margin, terminated, truncated, diverged, step_count, failing_steps and
    episode_return. If failure has no margin, failure_margin, danger_margin and safe_margin are
    None. `success_reward` is the reward of a step spent in success, or None if rewards have no such
    meaning. FailureBench's states also have object_start, goal and physics, for films.
    """

    num_envs: int
    observation_size: int
    action_size: int
    episode_limit: int
    random_return: float
    expert_return: float
    success_reward: float | None
    danger_margin: float | None
    danger_lead: float
    safe_margin: float | None
    compiler_options: Mapping[str, bool]

    def reset(self, key: jax.Array) -> Any:
        """Start an episode in each environment: State [N]."""
        ...

    def step(self, state: Any, action: jax.Array, key: jax.Array) -> tuple[Any, Any]:
        """Return (next state, outcome of this step). They differ where an episode ended."""
        ...

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Action of the scripted recovery controller: obs [N, D] -> [N, A], not clipped."""
        ...


@struct.dataclass
class Decision:
    """A controller's choice and its reasons. Fields [...] are batched like the observation."""

    action: jax.Array  # [..., A] executed (before the environment clips it)
    log_prob: jax.Array  # [...] log density of `action` under the task policy
    task_action: jax.Array  # [..., A] the task policy's action
    task_log_prob: jax.Array  # [...] its log density
    intervened: jax.Array  # [...] bool, the recovery policy acted
    risky: jax.Array  # [...] bool, the gate's rule holds for `task_action`
    risk: jax.Array  # [...] R or Q_risk that the gate compared with eps; 0 without a gate
    alarm: jax.Array  # [...] i32 the gate's recent state, an index of `gate.ALARMS`
    control: jax.Array  # [...] bool, an episode of the control group, which has no gate


@struct.dataclass
class Transition:
    """One environment step; [T, N] in a rollout."""

    obs: jax.Array  # [..., D]
    decision: Decision
    reward: jax.Array  # [...]
    failure: jax.Array  # [...] bool, C(s, a)
    first_failure: jax.Array  # [...] bool, first failing step of its episode
    success: jax.Array  # [...] bool
    terminated: jax.Array  # [...] bool, ends by success or failure: no bootstrap
    truncated: jax.Array  # [...] bool, ends by time or divergence: bootstrap
    diverged: jax.Array  # [...] bool
    next_obs: jax.Array  # [..., D] true next observation, before any reset
    margin: jax.Array | None  # [...] m to failure before the step; None without a margin
    next_margin: jax.Array | None  # [...] m to failure after it
    episode_return: jax.Array  # [...] sum of the episode's rewards, this step included
    failing_steps: jax.Array  # [...] failing steps of the episode up to this step
    step_count: jax.Array  # [...] steps of the episode up to this step
    counted: jax.Array | None = None  # [...] bool, `online.budget`; None: every step counts

    @property
    def usable(self) -> jax.Array:
        """Whether a step is learnt from: it counts, and the simulation did not diverge."""
        return ~self.diverged if self.counted is None else self.counted & ~self.diverged

    @property
    def done(self) -> jax.Array:
        """Whether the episode ended with this step."""
        return self.terminated | self.truncated


@struct.dataclass
class Normalizer:
    """Fixed statistics: z = (obs - mean) / std for observations, r' = reward r for rewards."""

    mean: jax.Array  # [D]
    std: jax.Array  # [D], floored
    reward: jax.Array | float = 1.0  # [] factor on the rewards of all learners

    def __call__(self, obs: jax.Array) -> jax.Array:
        """Normalise observations [..., D]."""
        return (obs - self.mean) / self.std


Controller = Callable[[Any, Any, jax.Array], tuple[Any, Decision]]
"""(memory, State [N], key) -> (memory, Decision [N]). Memory is reset where step_count is 0."""
