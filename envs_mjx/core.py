"""What every environment here is: a typed `State` and two pure functions, `reset` and `step`."""

from collections.abc import Mapping
from typing import Protocol

import jax
from flax import struct


@struct.dataclass
class PhysicsState:
    """All that the simulator needs to continue, under 1 KB per environment.

    Float32 rows are the truth on every backend: the C engine computes in float64 from them and
    is rounded back after each environment step, so restoring a row restores the simulation.
    """

    qpos: jax.Array  # [nq] generalised positions, m and rad
    qvel: jax.Array  # [nv] generalised velocities
    warmstart: jax.Array  # [nv] last accelerations, the constraint solver's first guess
    mocap_pos: jax.Array  # [nmocap, 3] m: body 0 drags the hand; 1, if any, holds the goal


@struct.dataclass
class State:
    """One environment after `reset` or `step`. Batched forms add leading axes to every field."""

    physics: PhysicsState
    obs: (
        jax.Array
    )  # [2 F + 3] f32: a frame of F now, the one before, 3 goal m; the Sawyer's F is 18
    object_start: jax.Array  # [3] f32 m, where the object stood at reset
    goal: jax.Array  # [3] f32 m
    reward: jax.Array  # [] f32 base_reward, plus 10 x (steps left) on the step that succeeds
    base_reward: jax.Array  # [] f32 MetaWorld's reward of this step, in [0, 10]
    success: jax.Array  # [] bool
    failure: jax.Array  # [] bool, C(s, a) of this step
    failure_margin: jax.Array  # [] f32 m to failure, negative while failing
    terminated: jax.Array  # [] bool: success; never bootstrapped
    truncated: jax.Array  # [] bool: time limit or divergence; bootstrapped
    diverged: jax.Array  # [] bool: physics or action not finite; last good state kept
    step_count: jax.Array  # [] i32 steps since reset
    failing_steps: jax.Array  # [] i32 steps of this episode with failure, this one included
    episode_return: jax.Array  # [] f32 sum of reward since reset
    noise: jax.Array | None = None  # [2] u32 key of what is drawn during an episode, if anything is
    queued: jax.Array | None = None  # [action_size] what a late robot will carry out next

    @property
    def done(self) -> jax.Array:
        """Whether the episode ended with this step, [] bool."""
        return self.terminated | self.truncated


class Env(Protocol):
    """One environment: pure functions of single states, for `jax.vmap` and `jax.jit`.

    `compiler_options` must be handed to every `jax.jit` that contains `reset` or `step`
    (empty except for MJX on a CPU). The scripted controllers map one observation to one action.
    """

    name: str
    backend: str
    observation_size: int
    action_size: int
    episode_limit: int
    random_return: float  # normalisation references, measured (docs/tasks.md)
    expert_return: float
    success_reward: float  # reward of one step spent in success
    danger_margin: float  # m, where recovery should begin, and where it has succeeded
    danger_lead: float  # steps ahead that both count, at the speed of the moment
    safe_margin: float
    compiler_options: Mapping[str, bool]

    def reset(self, key: jax.Array) -> State:
        """Start an episode; the key is the only source of randomness."""
        ...

    def step(self, state: State, action: jax.Array) -> State:
        """Advance by one action [action_size]; never resets."""
        ...
