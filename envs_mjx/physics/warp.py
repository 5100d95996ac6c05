"""The `warp` backend: MJX's interface to MuJoCo Warp, for NVIDIA GPUs (slow on a CPU)."""

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from envs_mjx.core import PhysicsState
from envs_mjx.errors import EnvError

# Three boxes on a plane and two pairs of boxes make at most 28 contacts of up to six rows each;
# the weld and the joint limits add 15 rows. Both buffers have spare room.
_CONTACTS = 48  # per environment, in one buffer shared by all
_CONSTRAINTS = 256  # per environment

BatchedStep = Callable[..., Any]


def warp_step(model: mujoco.MjModel, substeps: int) -> Callable[..., Any]:
    """Return `physics.StepFn` on MuJoCo Warp.

    Warp drops contacts if a buffer is full. Such rows become NaN, so the environment marks them
    `diverged`.

    Raises:
      EnvError: warp-lang is not installed.
    """
    if importlib.util.find_spec("warp") is None:
        raise EnvError(
            "backend 'warp' needs warp-lang, which is not installed: "
            "pip install 'farl-jax[warp]', or choose backend 'mjx' or 'native'"
        )
    from mujoco import mjx
    from mujoco.mjx.third_party.mujoco_warp._src.types import OverflowType

    # The thin model stops its solver early on purpose.
    harmless = int(OverflowType.ITERATIONS | OverflowType.LS_ITERATIONS)
    device_model = mjx.put_model(model, impl="warp")
    device_model = device_model.tree_replace(
        {"opt._impl.warn_overflow": int(OverflowType.ALL) & ~harmless}
    )

    def step_rows(state: PhysicsState, control: Any) -> tuple[PhysicsState, jax.Array]:
        rows = state.qpos.shape[0]
        template = mjx.make_data(model, impl="warp", naconmax=_CONTACTS * rows, njmax=_CONSTRAINTS)

        def substep(carry: tuple, _: None) -> tuple[tuple, None]:
            data, overflow = carry
            data = mjx.step(device_model, data)
            return (data, overflow | data._impl.overflow), None

        def step_row(state: PhysicsState, control: Any) -> tuple[PhysicsState, jax.Array]:
            data = template.replace(
                qpos=state.qpos,
                qvel=state.qvel,
                qacc_warmstart=state.warmstart,
                mocap_pos=control.mocap_pos,
                ctrl=control.ctrl,
            )
            none = jnp.zeros_like(data._impl.overflow)
            (data, overflow), _ = jax.lax.scan(substep, (data, none), None, length=substeps)
            data = mjx.forward(device_model, data)  # sensors lag the state by one substep
            moved = PhysicsState(data.qpos, data.qvel, data.qacc_warmstart, data.mocap_pos)
            complete = jnp.all(((overflow | data._impl.overflow) & ~harmless) == 0)
            qpos = jnp.where(complete, moved.qpos, jnp.nan)
            return moved.replace(qpos=qpos), data.sensordata

        return jax.vmap(step_row)(state, control)

    return _flat_vmap(step_rows)


def _flat_vmap(step_rows: BatchedStep) -> Callable[..., Any]:
    """Turn a step of N rows into one of a single row; its vmaps, also nested, make one call.

    The contact buffer's size depends on N, which a function under `jax.vmap` cannot see.
    """

    @jax.custom_batching.custom_vmap
    def rows(*args: Any) -> Any:
        return step_rows(*args)

    @rows.def_vmap
    def rows_of_rows(size: int, batched: Any, *args: Any) -> tuple[Any, Any]:
        args = _with_axis(size, batched, args)
        count = jax.tree.leaves(args)[0].shape[1]
        flat = jax.tree.map(lambda leaf: leaf.reshape(size * count, *leaf.shape[2:]), args)
        out = rows(*flat)
        out = jax.tree.map(lambda leaf: leaf.reshape(size, count, *leaf.shape[1:]), out)
        return out, jax.tree.map(lambda _: True, out)

    @jax.custom_batching.custom_vmap
    def single(*args: Any) -> Any:
        out = rows(*jax.tree.map(lambda leaf: leaf[None], args))
        return jax.tree.map(lambda leaf: leaf[0], out)

    @single.def_vmap
    def vmapped(size: int, batched: Any, *args: Any) -> tuple[Any, Any]:
        out = rows(*_with_axis(size, batched, args))
        return out, jax.tree.map(lambda _: True, out)

    return single


def _with_axis(size: int, batched: Any, args: Any) -> Any:
    """Give every leaf of `args` the leading batch axis."""

    def widen(has_axis: bool, leaf: jax.Array) -> jax.Array:
        return leaf if has_axis else jnp.broadcast_to(leaf, (size, *leaf.shape))

    return jax.tree.map(widen, tuple(batched), args)
