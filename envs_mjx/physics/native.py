"""The `native` backend: C MuJoCo on the host's threads.

Where a C++ compiler is at hand, a step is a custom call of the compiled program (`native.cc`).
Elsewhere, and where the default device is not a CPU, it is a callback. The numbers are equal.
"""

import copy
import hashlib
import os
import threading
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import batch as mujoco_batch

from envs_mjx.core import Control, PhysicsState
from envs_mjx.physics import compiled

_DIVERGED = [
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
]

RowStep = Callable[[jax.Array], jax.Array]
"""Row [qpos, qvel, warm start, mocap_pos, ctrl] -> [qpos, qvel, warm start, mocap_pos, sensors]."""


def cores() -> int:
    """Cores that this process may use; a cluster's job may have fewer than the machine."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def native_step(
    model: mujoco.MjModel, threads: int, substeps: int
) -> tuple[Callable[[PhysicsState, Control], tuple[PhysicsState, jax.Array]], bool]:
    """Return the step of one environment, and whether threads may run programs with it at once.

    `threads` threads of the host step a vmapped batch. Callbacks may not run at once, because two
    of them can wait for each other's threads.
    """
    model = copy.copy(model)
    # Islands do not pay for few bodies: without them a step is 7 % faster.
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND.value
    library = compiled.library() if jax.default_backend() == "cpu" else None
    if library is None:
        step_row = by_callback(model, threads, substeps)
    else:
        step_row = by_custom_call(library, model, threads, substeps)

    def step(state: PhysicsState, control: Control) -> tuple[PhysicsState, jax.Array]:
        mocap = control.mocap_pos.reshape(-1)
        row = jnp.concatenate([state.qpos, state.qvel, state.warmstart, mocap, control.ctrl])
        stops = np.cumsum([model.nq, model.nv, model.nv, 3 * model.nmocap])
        qpos, qvel, warmstart, mocap, sensordata = jnp.split(step_row(row), stops)
        mocap_pos = mocap.reshape(model.nmocap, 3)
        return PhysicsState(qpos, qvel, warmstart, mocap_pos), sensordata

    return step, library is not None


def _next_row(model: mujoco.MjModel) -> jax.ShapeDtypeStruct:
    size = model.nq + 2 * model.nv + 3 * model.nmocap + model.nsensordata
    return jax.ShapeDtypeStruct((size,), jnp.float32)


def by_custom_call(
    library: compiled.Library, model: mujoco.MjModel, threads: int, substeps: int
) -> RowStep:
    """Return the step of a row as a custom call of the compiled program."""
    key = _hash(model)
    library.add_scene(key, model)
    call = jax.ffi.ffi_call(compiled.STEP, _next_row(model), vmap_method="expand_dims")
    options = {"scene": key, "threads": np.int64(threads), "substeps": np.int64(substeps)}
    return lambda row: call(row, **options)


def _hash(model: mujoco.MjModel) -> np.int64:
    """Hash of all numbers of a model: equal in every process, so that programs can be cached."""
    content = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, content)
    return np.frombuffer(hashlib.sha256(content.data).digest()[:8], np.int64)[0]


def by_callback(model: mujoco.MjModel, threads: int, substeps: int) -> RowStep:
    """Return the step of a row as a callback of the host."""
    host = _HostBatches(model, threads, substeps)
    # A callback may be repeated or dropped, so it takes and returns the whole state.
    # "expand_dims" passes the whole vmapped batch in one call.
    return lambda row: jax.pure_callback(
        host.step_rows, _next_row(model), row, vmap_method="expand_dims"
    )


class _HostBatches:
    """Steps float32 rows of any batch size with C MuJoCo. NumPy only: jnp here deadlocks."""

    def __init__(self, model: mujoco.MjModel, threads: int, substeps: int) -> None:
        self._model, self._threads, self._substeps = model, threads, substeps
        self._batches: dict[int, _BatchViews] = {}
        self._lock = threading.Lock()  # XLA may run two callbacks at once

    def step_rows(self, row: jax.Array) -> np.ndarray:
        """Map rows [..., n] to next rows [..., m]; see `RowStep`."""
        rows = np.asarray(row)
        flat = rows.reshape(-1, rows.shape[-1])
        with self._lock:
            out = self._step_flat(flat)
        return out.reshape(*rows.shape[:-1], out.shape[-1])

    def _step_flat(self, rows: np.ndarray) -> np.ndarray:
        views = self._views(len(rows))
        good = (np.abs(rows) < mujoco.mjMAXVAL).all(axis=1)  # false for NaN, too
        # Bad rows use the default state, since MuJoCo would log each of them to a file.
        default = np.concatenate([self._model.qpos0, np.zeros(rows.shape[1] - self._model.nq)])
        rows = np.where(good[:, None], rows, default)
        stops = np.cumsum([view.shape[1] for view in views.inputs])
        for view, part in zip(views.inputs, np.split(rows, stops[:-1], axis=1), strict=True):
            view[:] = part
        views.batch.warning[:] = 0
        try:
            views.batch.step(nstep=self._substeps, stage=mujoco.mjtStage.mjSTAGE_VEL.value)
        except mujoco_batch.SimulationError as error:
            good[error.ids] = False
        out = np.concatenate([*views.inputs[:-1], views.sensordata], axis=1).astype(np.float32)
        good &= np.isfinite(out).all(axis=1)
        # MuJoCo resets a diverged simulation and only sets a warning.
        good &= ~views.batch.warning[:, _DIVERGED].any(axis=(1, 2))
        out[~good] = np.nan
        return out

    def _views(self, size: int) -> "_BatchViews":
        if size not in self._batches:
            batch = mujoco_batch.Batch(self._model, size, min(self._threads, size))
            names = ("qpos", "qvel", "qacc_warmstart", "mocap_pos", "ctrl")
            inputs = tuple(batch.bind(name).reshape(size, -1) for name in names)
            # Bind before the first step; otherwise it stays zero.
            self._batches[size] = _BatchViews(batch, inputs, batch.bind("sensordata"))
        return self._batches[size]


class _BatchViews(NamedTuple):
    batch: mujoco_batch.Batch
    inputs: tuple[np.ndarray, ...]  # each [size, n], float64, live: writing one sets the state
    sensordata: np.ndarray  # [size, nsensordata], refreshed by every step
