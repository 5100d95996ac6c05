"""An environment: a typed `State`, fixed facts, and two pure functions, `reset` and `step`."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
from flax import struct


class PhysicsState(struct.PyTreeNode):
    """Everything that the simulator needs to continue, under 1 KB per environment.

    It is float32 on every backend. The C engine computes in float64 and is rounded after each
    environment step, so restoring a row restores the simulation.
    """

    qpos: jax.Array  # [nq] generalised positions, m and rad
    qvel: jax.Array  # [nv] generalised velocities
    warmstart: jax.Array  # [nv] last accelerations, the constraint solver's first guess
    mocap_pos: jax.Array  # [nmocap, 3] m: body 0 drags the hand; 1, if any, holds the goal


class Control(NamedTuple):
    """The commands of one step."""

    mocap_pos: jax.Array  # [nmocap, 3] m, positions of the mocap bodies from now on
    ctrl: jax.Array  # [nu] actuator inputs


class State(struct.PyTreeNode):
    """One environment after `reset` or `step`. Batched forms add leading axes to every field."""

    physics: PhysicsState
    """The simulator's part."""
    obs: jax.Array
    """[2 F + 3] f32: a frame of F now, the one before, 3 goal m; the Sawyer's F is 18."""
    object_start: jax.Array
    """[3] f32 m: the object's position at reset."""
    goal: jax.Array
    """[3] f32 m: where the object should go."""
    reward: jax.Array
    """[] f32: base_reward, plus 10 x (steps left) on the step that succeeds."""
    base_reward: jax.Array
    """[] f32: MetaWorld's reward of this step, in [0, 10]."""
    success: jax.Array
    """[] bool: the task is done."""
    failure: jax.Array
    """[] bool: C(s, a) of this step."""
    failure_margin: jax.Array
    """[] f32 m: distance to failure, negative while failing."""
    terminated: jax.Array
    """[] bool: success; never bootstrapped."""
    truncated: jax.Array
    """[] bool: time limit or divergence; bootstrapped."""
    diverged: jax.Array
    """[] bool: physics or action not finite; the last finite state is kept."""
    step_count: jax.Array
    """[] i32: steps since reset."""
    failing_steps: jax.Array
    """[] i32: steps of this episode with failure, this one included."""
    episode_return: jax.Array
    """[] f32: sum of reward since reset."""
    noise: jax.Array | None = None
    """[2] u32: key of the random draws during an episode, if any."""
    queued: jax.Array | None = None
    """[action_size]: the action that a delayed robot executes next."""

    @property
    def done(self) -> jax.Array:
        """Whether the episode ended with this step, [] bool."""
        return self.terminated | self.truncated


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class EnvFacts:
    """Facts of an environment, shared by all its wrappers as read-only attributes."""

    name: str
    backend: str
    observation_size: int
    action_size: int
    episode_limit: int
    random_return: float  # normalisation references, measured (docs/tasks.md)
    expert_return: float
    success_reward: float  # largest reward of a step, and that of each step after a success
    danger_margin: float  # m; recovery should begin below it
    danger_lead: float  # steps ahead at which both margins are predicted, at the current speed
    safe_margin: float  # m; recovery has succeeded above it
    compiler_options: Mapping[str, bool]  # for every jit of `reset` or `step`


def facts_of(source: Any, **known: Any) -> dict[str, Any]:
    """Return all `EnvFacts` by name: those in `known`, the others from attributes of `source`."""
    names = {field.name for field in dataclasses.fields(EnvFacts)} - known.keys()
    return {name: getattr(source, name) for name in names} | known


class Env(Protocol):
    """One environment: pure functions of single states, for `jax.vmap` and `jax.jit`.

    It has all attributes of `EnvFacts`. Its scripted controllers map one observation to one action.
    """

    def reset(self, key: jax.Array) -> State:
        """Start an episode; the key is the only source of randomness."""
        ...

    def step(self, state: State, action: jax.Array) -> State:
        """Advance by one action [action_size]; never resets."""
        ...

    def recovery(self, obs: jax.Array) -> jax.Array:
        """Return the scripted recovery's action [action_size], not clipped, at `obs` [D]."""
        ...
