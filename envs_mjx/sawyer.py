"""MetaWorld's Sawyer arm as a pure environment: actions, observations, reset and step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs_mjx import forks
from envs_mjx.core import PhysicsState, State
from envs_mjx.errors import EnvError
from envs_mjx.physics import scene
from envs_mjx.physics.backends import SUBSTEPS, Control, initial_state, make_physics
from envs_mjx.tasks.task import Episode, Readings, Task

_ACTION_SCALE = 0.01  # m of mocap motion per unit of action
_MAX_REWARD = 10.0  # of MetaWorld, per step
_SETTLE_STEPS = 50
_SETTLE_CTRL = (-1.0, 1.0)  # gripper open
_GRIPPER_SPAN = 0.1  # m between the claws, observed as 1
_FRAME = 18  # numbers in one observation frame
_OBJECT_QPOS = 9  # 7 arm joints and 2 fingers come first
_HAND_MOCAP, _GOAL_MOCAP = 0, 1  # the arm comes first in MetaWorld's files
# MetaWorld clips what it observes of the hand to these, m.
_HAND_SEEN_LOW = (-0.525, 0.348, -0.0525)
_HAND_SEEN_HIGH = (0.525, 1.025, 0.7)


class SawyerEnv:
    """One task on one physics backend. Implements `core.Env`.

    Holds only constants; `reset`, `reset_at` and `step` are pure functions of single states.
    """

    observation_size = 2 * _FRAME + 3
    action_size = 4

    def __init__(self, task: Task, backend: str, threads: int | None = None) -> None:
        """Build the model and settle the hand once, on the host (about 20 ms)."""
        self._built_from = task, backend, threads
        self.task = task
        self.name = task.name
        self.backend = backend
        self.episode_limit = task.episode_limit
        self.random_return = task.random_return
        self.expert_return = task.expert_return
        self.success_reward = _MAX_REWARD
        self.danger_margin = task.danger_margin
        self.danger_lead = task.danger_lead
        self.safe_margin = task.safe_margin
        self.expert = task.expert
        self.careless = task.careless
        self.careless_traits = task.careless_traits
        self.recovery = task.recovery
        self.compiler_options: Mapping[str, bool] = {}
        if forks.is_fork():
            return  # `reset` and `step` say why; gymnasium would lose what is raised here
        self.model = scene.build_physics_model(task.scene_file, task.edit_physics, task.scene_parts)
        self._sensors = scene.sensor_slices(self.model)
        self._physics = make_physics(self.model, backend, threads)
        self.compiler_options = self._physics.compiler_options
        settled = _settle(self.model, task.hand_start)
        self._settled = initial_state(settled)
        self._settled_sensordata = jnp.asarray(settled.sensordata, jnp.float32)
        self._tcp_start = self._read(self._settled_sensordata).tcp

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        """Pickle what it was built from: another process builds its own."""
        return type(self), self._built_from

    def reset(self, key: jax.Array) -> State:
        """Start an episode; `key` is the only source of randomness."""
        forks.check_process()
        object_xy, goal_xy = self.task.place(key)
        return self.reset_at(object_xy, goal_xy)

    def reset_at(self, object_position: jax.Array, goal_position: jax.Array) -> State:
        """Start an episode with object and goal at given places.

        Args:
          object_position: [2] or [3] m; only x and y count, the height is the scene's.
          goal_position: [2] or [3] m; only x and y count, the height is the scene's.
        """
        forks.check_process()
        object_position = jnp.asarray(object_position, jnp.float32)
        goal_position = jnp.asarray(goal_position, jnp.float32)
        parts = self.task.scene_parts
        settled_height = self._settled.qpos[_OBJECT_QPOS + 2]
        height = settled_height if parts.object_height is None else parts.object_height
        object_start = jnp.append(object_position[:2], height)
        goal_height = height if parts.goal_height is None else parts.goal_height
        goal = jnp.append(goal_position[:2], goal_height)
        physics = self._place(object_start, goal)
        readings = self._read(self._settled_sensordata)._replace(
            object_pos=object_start,
            object_quat=_metaworld_quat(physics.qpos[_OBJECT_QPOS + 3 : _OBJECT_QPOS + 7]),
        )
        frame = self._frame(readings)
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
        )

    def step(self, state: State, action: jax.Array) -> State:
        """Advance by one action [4] (hand motion x, y, z and gripper effort); never resets.

        A success ends the episode and is absorbing: its step also pays 10 for each step left.
        """
        forks.check_process()
        action = _checked_action(action)
        finite_action = jnp.all(jnp.isfinite(action))
        action = jnp.where(finite_action, action, 0.0)
        moved, sensordata = self._physics.step(state.physics, self._control(state, action))
        good = finite_action & _all_finite(moved) & _all_finite(sensordata)
        # Selected before anything is computed from them, so that no NaN goes further.
        physics = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state.physics)
        sensordata = jnp.where(good, sensordata, self._settled_sensordata)
        return self._evaluate(state, action, physics, self._read(sensordata), good)

    def _evaluate(
        self,
        state: State,
        action: jax.Array,
        physics: PhysicsState,
        readings: Readings,
        good: jax.Array,
    ) -> State:
        """Turn readings into the next state; where not `good`, keep what `state` knew."""
        episode = Episode(state.object_start, state.goal, self._tcp_start)
        seen_goal = self._seen_goal(state.goal)
        obs = jnp.concatenate([self._frame(readings), state.obs[:_FRAME], seen_goal])
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
        )

    def _control(self, state: State, action: jax.Array) -> Control:
        low, high = jnp.array(self.task.hand_low), jnp.array(self.task.hand_high)
        motion = _ACTION_SCALE * jnp.clip(action[:3], -1.0, 1.0)
        hand = jnp.clip(state.physics.mocap_pos[_HAND_MOCAP] + motion, low, high)
        grip = jnp.clip(action[3], -1.0, 1.0)
        mocap_pos = state.physics.mocap_pos.at[_HAND_MOCAP].set(hand)
        return Control(mocap_pos, jnp.stack([grip, -grip]))

    def _place(self, object_start: jax.Array, goal: jax.Array) -> PhysicsState:
        """Put the object, and the goal's body where there is one, into the settled scene."""
        settled = self._settled
        qpos = settled.qpos.at[_OBJECT_QPOS : _OBJECT_QPOS + 3].set(object_start)
        qvel = settled.qvel.at[_OBJECT_QPOS:].set(0.0)
        mocap_pos = settled.mocap_pos
        if self.task.scene_parts.goal_body is not None:
            mocap_pos = mocap_pos.at[_GOAL_MOCAP].set(goal)
        return settled.replace(qpos=qpos, qvel=qvel, mocap_pos=mocap_pos)

    def _read(self, sensordata: jax.Array) -> Readings:
        raw = {name: sensordata[where] for name, where in self._sensors.items()}
        return Readings(
            tcp=(raw.pop("right_tip") + raw.pop("left_tip")) / 2.0,
            hand=raw.pop("hand"),
            claws=jnp.stack([raw.pop("right_claw"), raw.pop("left_claw")]),
            pads=jnp.stack([raw.pop("right_pad"), raw.pop("left_pad")]),
            object_pos=raw.pop("object_pos"),
            object_quat=_metaworld_quat(raw.pop("object_quat")),
            extra=raw,
        )

    def _frame(self, readings: Readings) -> jax.Array:
        """Return [18]: hand 3, gripper opening 1, object position 3 and quaternion 4, zeros 7."""
        hand = jnp.clip(readings.hand, jnp.array(_HAND_SEEN_LOW), jnp.array(_HAND_SEEN_HIGH))
        span = jnp.linalg.norm(readings.claws[0] - readings.claws[1])
        opening = jnp.clip(span / _GRIPPER_SPAN, 0.0, 1.0)
        frame = jnp.concatenate([hand, opening[None], readings.object_pos, readings.object_quat])
        return jnp.pad(frame, (0, _FRAME - frame.shape[0]))

    def _seen_goal(self, goal: jax.Array) -> jax.Array:
        return jnp.clip(goal, jnp.array(self.task.goal_low), jnp.array(self.task.goal_high))


def _settle(model: mujoco.MjModel, hand_start: tuple[float, float, float]) -> mujoco.MjData:
    """Pull the hand to its start as MetaWorld's reset does, with sensors current."""
    data = mujoco.MjData(model)
    data.mocap_pos[_HAND_MOCAP] = hand_start
    data.ctrl[:] = _SETTLE_CTRL
    mujoco.mj_step(model, data, _SETTLE_STEPS * SUBSTEPS)
    mujoco.mj_forward(model, data)
    if not np.isfinite(data.qpos).all():
        raise EnvError("the hand does not settle at its start: check the scene's changes")
    return data


def _checked_action(action: jax.Array) -> jax.Array:
    action = jnp.asarray(action, jnp.float32)
    if action.shape != (SawyerEnv.action_size,):
        raise EnvError(
            f"step takes one action of shape (4,), got {action.shape}; "
            "for a batch use BatchEnv or jax.vmap(env.step)"
        )
    return action


def _all_finite(tree: Any) -> jax.Array:
    return jnp.all(jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def _metaworld_quat(quat: jax.Array) -> jax.Array:
    """Return MuJoCo's quaternion [w, x, y, z] as SciPy gives it from a rotation matrix.

    Scalar last, and of the two signs the one whose largest component is positive.
    """
    scalar_last = jnp.roll(quat, -1)
    largest = scalar_last[jnp.argmax(jnp.abs(scalar_last))]
    return jnp.where(largest < 0.0, -scalar_last, scalar_last)
