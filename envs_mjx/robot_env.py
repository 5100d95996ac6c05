"""One task on one robot as a pure environment: reset and step."""

import copy
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from envs_mjx import forks
from envs_mjx.core import EnvFacts, PhysicsState, State, facts_of
from envs_mjx.errors import EnvError
from envs_mjx.physics.backends import Control, initial_state, make_physics
from envs_mjx.physics.scene import sensor_slices
from envs_mjx.robots.robot import Readings, scalar_last
from envs_mjx.shift import Shift, shift_model
from envs_mjx.tasks.task import Disturbed, Episode, Task

_MAX_REWARD = 10.0  # of MetaWorld, per step
_HAND_MOCAP = 0
_GOAL_MOCAP = 1  # the body that stands at the goal, where there is one
_NOISE, _BLUR = 1, 2  # folded into the key of a reset and of a step


class RobotEnv(EnvFacts):
    """One task on one physics backend. Implements `core.Env`.

    Holds only constants; `reset`, `reset_at` and `step` are pure functions of single states.
    """

    def __init__(
        self, task: Task, backend: str, threads: int | None = None, shift: Shift | None = None
    ) -> None:
        """Build the model and settle the hand once, on the host (about 20 ms).

        A `shift` changes the dynamics; without one they are nominal.
        """
        self._built_from = task, backend, threads, shift
        self.shift = shift
        self.task = task
        self.robot = task.robot
        self.expert = task.expert
        self.careless = task.careless
        self.careless_traits = task.careless_traits
        self.recovery = task.recovery
        self._random = isinstance(task, Disturbed) or shift is not None
        facts = facts_of(
            task,
            backend=backend,
            observation_size=2 * self.robot.frame_size + 3,
            action_size=self.robot.action_size,
            success_reward=_MAX_REWARD,
            # In a fork `reset` and `step` say why it fails; gymnasium would lose an error here.
            compiler_options={} if forks.is_fork() else self._build(task, backend, threads),
        )
        super().__init__(**facts)

    def _build(self, task: Task, backend: str, threads: int | None) -> Mapping[str, bool]:
        """Compile the model and settle the hand; return the options of `jax.jit`."""
        scene = task.scene_file, task.edit_physics, task.scene_parts
        self.model = self.robot.physics_model(*scene)
        if self.shift is not None:
            shift_model(self.model, self.shift, self.robot.object_qpos)
        self._sensors = sensor_slices(self.model)
        self._physics = make_physics(self.model, backend, threads)
        settled = self.robot.settle(self.model, task.hand_start)
        if not np.isfinite(settled.qpos).all():
            raise EnvError("the hand does not settle at hand_start: check the task's scene")
        self._settled = initial_state(settled)
        self._settled_sensordata = jnp.asarray(settled.sensordata, jnp.float32)
        self._tcp_start = self._read(self._settled_sensordata).tcp
        return self._physics.compiler_options

    @property
    def host_threads(self) -> int:
        """Threads of the host that step a batch, if shares of it may run side by side; else 0."""
        return self._physics.host_threads

    def with_threads(self, threads: int) -> "RobotEnv":
        """Return the same environment, stepped by `threads` threads of the host."""
        task, backend, _, shift = self._built_from
        other = copy.copy(self)
        other._built_from = task, backend, threads, shift
        other._physics = make_physics(self.model, backend, threads)
        return other

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Pickle the arguments; another process builds its own environment."""
        return type(self), self._built_from

    def reset(self, key: jax.Array) -> State:
        """Start an episode; `key` is the only source of randomness."""
        forks.check_process()
        object_xy, goal_xy = self.task.place(key)
        return self.reset_at(object_xy, goal_xy, key)

    def reset_at(
        self, object_position: jax.Array, goal_position: jax.Array, key: jax.Array | None = None
    ) -> State:
        """Start an episode with object and goal at given places.

        Args:
          object_position: [2] or [3] m; only x and y count, the height is the scene's.
          goal_position: [2] or [3] m; only x and y count, the height is the scene's.
          key: of random motion, if there is any; by default always the same.
        """
        forks.check_process()
        object_position = jnp.asarray(object_position, jnp.float32)
        goal_position = jnp.asarray(goal_position, jnp.float32)
        parts, first = self.task.scene_parts, self.robot.object_qpos
        settled_height = self._settled.qpos[first + 2]
        height = settled_height if parts.object_height is None else parts.object_height
        object_start = jnp.append(object_position[:2], height)
        goal_height = height if parts.goal_height is None else parts.goal_height
        goal = jnp.append(goal_position[:2], goal_height)
        physics = self._place(object_start, goal)
        readings = self._read(self._settled_sensordata)._replace(
            object_pos=object_start,
            object_quat=scalar_last(physics.qpos[first + 3 : first + 7]),
        )
        noise = None
        if self._random:
            key = jax.random.key(0) if key is None else jax.random.fold_in(key, _NOISE)
            noise = jax.random.key_data(key)
        if isinstance(self.task, Disturbed):
            assert key is not None  # its task is random
            physics, moved = self.task.enter(physics, key)
            readings = readings._replace(extra=readings.extra | moved)
        frame = self._frame(readings, key)
        episode = Episode(object_start, goal, self._tcp_start)
        margin = self.task.failure_margin(readings, episode)
        no, zero = jnp.bool_(False), jnp.float32(0.0)
        return State(
            physics=physics,
            obs=jnp.concatenate([frame, frame, self._seen_goal(goal)]),
            object_start=object_start,
            goal=goal,
            reward=zero,
            base_reward=zero,
            success=no,
            failure=margin < 0.0,
            failure_margin=margin,
            terminated=no,
            truncated=no,
            diverged=no,
            step_count=jnp.int32(0),
            failing_steps=jnp.int32(0),
            episode_return=zero,
            noise=noise,
            queued=None if self.shift is None else jnp.zeros(self.action_size),
        )

    def step(self, state: State, action: jax.Array) -> State:
        """Advance by one action [action_size]; never resets.

        A success ends the episode and also pays 10 for each remaining step.
        """
        forks.check_process()
        action = self._checked_action(action)
        finite_action = jnp.all(jnp.isfinite(action))
        action = jnp.where(finite_action, action, 0.0)
        executed = action if state.queued is None else self._late(state.queued, action)
        control = self._control(state, executed)
        moved, sensordata = self._physics.step(self._disturbed(state), control)
        good = finite_action & _all_finite(moved) & _all_finite(sensordata)
        # Select first, so that no NaN spreads.
        physics = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state.physics)
        sensordata = jnp.where(good, sensordata, self._settled_sensordata)
        after = self._evaluate(state, executed, physics, self._read(sensordata), good)
        return after if state.queued is None else after.replace(queued=action)

    def _evaluate(
        self,
        state: State,
        action: jax.Array,
        physics: PhysicsState,
        readings: Readings,
        good: jax.Array,
    ) -> State:
        """Turn readings into the next state; where not `good`, keep `state`'s values."""
        episode = Episode(state.object_start, state.goal, self._tcp_start)
        seen_goal = self._seen_goal(state.goal)
        before = state.obs[: self.robot.frame_size]
        key = _key_of_step(state) if self._random else None
        obs = jnp.concatenate([self._frame(readings, key), before, seen_goal])
        margin = self.task.failure_margin(readings, episode)
        margin = jnp.where(good, margin, state.failure_margin)
        failure = margin < 0.0
        success = good & self.task.success(readings, episode)
        base_reward = jnp.where(good, self.task.reward(readings, action, episode), 0.0)
        step_count = state.step_count + 1
        steps_left = jnp.maximum(self.episode_limit - step_count, 0)
        reward = base_reward + jnp.where(success, _MAX_REWARD * steps_left, 0.0)
        return State(
            physics=physics,
            obs=jnp.where(good, obs, state.obs),
            object_start=state.object_start,
            goal=state.goal,
            reward=reward,
            base_reward=base_reward,
            success=success,
            failure=failure,
            failure_margin=margin,
            terminated=success,
            truncated=~success & (~good | (step_count >= self.episode_limit)),
            diverged=~good,
            step_count=step_count,
            failing_steps=state.failing_steps + failure,
            episode_return=state.episode_return + reward,
            noise=state.noise,
        )

    def _control(self, state: State, action: jax.Array) -> Control:
        limits = self.task.hand_low, self.task.hand_high
        control = self.robot.control(state.physics, action, *limits)
        if self.shift is None:
            return control
        before = state.physics.mocap_pos
        moved = before + self.shift.gain * (control.mocap_pos - before)
        hand = jnp.clip(moved[_HAND_MOCAP], *map(jnp.array, limits))
        return control._replace(mocap_pos=moved.at[_HAND_MOCAP].set(hand))

    def _late(self, queued: jax.Array, action: jax.Array) -> jax.Array:
        """Return the action that a shifted robot executes now."""
        return queued if self.shift is not None and self.shift.latency else action

    def _frame(self, readings: Readings, key: jax.Array | None) -> jax.Array:
        """Return the current frame; a shifted robot's positions are noisy."""
        frame = self.robot.frame(readings)
        if self.shift is None:
            return frame
        assert key is not None  # a shifted robot is random
        drawn = jax.random.normal(jax.random.fold_in(key, _BLUR), frame.shape)
        return frame + self.shift.noise * drawn * jnp.array(self.robot.frame_positions)

    def _disturbed(self, state: State) -> PhysicsState:
        """Return the state before the step, after the task has moved its disturbance."""
        if not isinstance(self.task, Disturbed):
            return state.physics
        return self.task.disturb(state.physics, _key_of_step(state))

    def _place(self, object_start: jax.Array, goal: jax.Array) -> PhysicsState:
        """Put the object, and the goal's body if there is one, into the settled scene."""
        settled, first = self._settled, self.robot.object_qpos
        qpos = settled.qpos.at[first : first + 3].set(object_start)
        qvel = settled.qvel.at[first:].set(0.0)
        mocap_pos = settled.mocap_pos
        if self.task.scene_parts.goal_body is not None:
            mocap_pos = mocap_pos.at[_GOAL_MOCAP].set(goal)
        return settled.replace(qpos=qpos, qvel=qvel, mocap_pos=mocap_pos)

    def _read(self, sensordata: jax.Array) -> Readings:
        return self.robot.read({name: sensordata[at] for name, at in self._sensors.items()})

    def _seen_goal(self, goal: jax.Array) -> jax.Array:
        return jnp.clip(goal, jnp.array(self.task.goal_low), jnp.array(self.task.goal_high))

    def _checked_action(self, action: jax.Array) -> jax.Array:
        action = jnp.asarray(action, jnp.float32)
        if action.shape != (self.action_size,):
            raise EnvError(
                f"step takes one action of shape ({self.action_size},), got {action.shape}; "
                "for a batch, use BatchEnv or jax.vmap(env.step)"
            )
        return action


def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _key_of_step(state: State) -> jax.Array:
    """Return the key of the random draws in the step after `state`, of a random environment."""
    assert state.noise is not None
    return jax.random.fold_in(jax.random.wrap_key_data(state.noise), state.step_count)
