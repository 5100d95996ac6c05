"""One pure step of the simulator behind three interchangeable backends.

`step(state, control) -> (next_state, sensordata)` advances one environment by one control step.
It is written for a single environment and is meant to be vmapped, any number of times. Where the
simulator fails, all of that row's outputs are NaN and no other row is affected.
"""

import contextlib
import copy
import functools
import io
import os
import threading
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from mujoco import batch as mujoco_batch

from envs_mjx.core import PhysicsState
from envs_mjx.errors import EnvError, closest

BACKENDS = ("native", "mjx", "warp")
SUBSTEPS = 5  # MetaWorld's frame skip; each is model.opt.timestep = 2.5 ms

# Without these two, XLA:CPU takes seconds for one forward kinematics of a 13-link arm (the fusion
# emitter recomputes parents), and hangs for ever with 512 environments on two cores.
_CPU_OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}
# XLA:CPU hands B Cholesky factors [n, n] to its thread pool where B n^3 / 3 reaches this, and then
# waits for them in one of the pool's own threads: now and again, all of them wait (jaxlib 0.10).
_POOLED_WORK = 200_000
_DIVERGED = [
    mujoco.mjtWarning.mjWARN_BADQPOS.value,
    mujoco.mjtWarning.mjWARN_BADQVEL.value,
    mujoco.mjtWarning.mjWARN_BADQACC.value,
]


class Control(NamedTuple):
    """What one step is told to do."""

    mocap_pos: jax.Array  # [nmocap, 3] m, where the mocap bodies are from now on
    ctrl: jax.Array  # [nu] actuator inputs


StepFn = Callable[[PhysicsState, Control], tuple[PhysicsState, jax.Array]]


class Physics(NamedTuple):
    """A backend, ready to step one model."""

    step: StepFn
    compiler_options: Mapping[str, bool]  # for every `jax.jit` that contains `step`
    host_threads: int = 0  # threads of the host that `step` keeps busy, 0 where it runs on a device


def make_physics(model: mujoco.MjModel, backend: str, threads: int | None = None) -> Physics:
    """Return the step of `model` on `backend`.

    Args:
      model: the thin model of `scene.build_physics_model`.
      backend: "native" (C MuJoCo on the host's threads, whatever the default device), "mjx"
        (JAX, any device) or "warp" (NVIDIA, needs the extra `warp`).
      threads: threads of the native backend; by default as many as the process has cores. Results
        do not depend on it.

    Raises:
      EnvError: unknown backend, or one that cannot run here.
    """
    if backend == "native":
        threads = threads or _cores()
        return Physics(_native_step(model, threads), {}, threads)
    if backend == "mjx":
        step = _mjx_step(model)
        if jax.default_backend() == "cpu":
            step = in_blocks(step, _unpooled_rows(model.nv))
        return Physics(step, cpu_compiler_options())
    if backend == "warp":
        from envs_mjx.physics import warp

        return Physics(warp.warp_step(model, SUBSTEPS), {})
    raise EnvError(f"unknown physics backend {backend!r}: {closest(backend, BACKENDS)}")


def initial_state(data: mujoco.MjData) -> PhysicsState:
    """Return the float32 row of one host simulation."""
    return PhysicsState(
        qpos=jnp.asarray(data.qpos, jnp.float32),
        qvel=jnp.asarray(data.qvel, jnp.float32),
        warmstart=jnp.asarray(data.qacc_warmstart, jnp.float32),
        mocap_pos=jnp.asarray(data.mocap_pos, jnp.float32),
    )


@functools.cache
def cpu_compiler_options() -> Mapping[str, bool]:
    """Return the options that MJX needs on a CPU, without those this jax does not know."""
    if jax.default_backend() != "cpu":
        return {}
    known = {}
    for name, value in _CPU_OPTIONS.items():
        probe = jax.jit(lambda x: x + 1.0, compiler_options={name: value})
        try:
            probe.lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            continue  # flags vanish between releases, and with them the need
        known[name] = value
    return known


# --- native: mujoco.batch.Batch behind one callback ------------------------------------------


def _cores() -> int:
    """Cores that this process may use: a share of the machine, in a job of a cluster."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _native_step(model: mujoco.MjModel, threads: int) -> StepFn:
    host = _HostBatches(model, threads)
    rows = jax.ShapeDtypeStruct((host.row_size + model.nsensordata,), jnp.float32)

    def step(state: PhysicsState, control: Control) -> tuple[PhysicsState, jax.Array]:
        row = jnp.concatenate(
            [
                state.qpos,
                state.qvel,
                state.warmstart,
                control.mocap_pos.reshape(-1),
                control.ctrl,
            ]
        )
        # A callback may be repeated or dropped, so the whole state goes in and comes out.
        # "expand_dims" hands over the whole vmapped batch in one call.
        out = jax.pure_callback(host.step_rows, rows, row, vmap_method="expand_dims")
        stops = np.cumsum([model.nq, model.nv, model.nv, 3 * model.nmocap])
        qpos, qvel, warmstart, mocap, sensordata = jnp.split(out, stops)
        mocap_pos = mocap.reshape(model.nmocap, 3)
        return PhysicsState(qpos, qvel, warmstart, mocap_pos), sensordata

    return step


class _HostBatches:
    """Steps float32 rows of any batch size with C MuJoCo. NumPy only: jnp here deadlocks."""

    def __init__(self, model: mujoco.MjModel, threads: int) -> None:
        self._model = copy.copy(model)
        # Solving the puck and the arm apart only pays where they are many: 7 % of a step here.
        self._model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ISLAND.value
        self._threads = threads
        self._idle: dict[int, list[_BatchViews]] = {}
        self._lock = threading.Lock()  # several callbacks may run at once, each on its own batch
        self.row_size = model.nq + 2 * model.nv + 3 * model.nmocap

    def step_rows(self, row: jax.Array) -> np.ndarray:
        """Map rows [..., row_size + nu] to next rows [..., row_size + nsensordata]."""
        rows = np.asarray(row)
        flat = rows.reshape(-1, rows.shape[-1])
        views = self._take(len(flat))
        try:
            out = self._step_flat(flat, views)
        finally:
            with self._lock:
                self._idle[len(flat)].append(views)
        return out.reshape(*rows.shape[:-1], out.shape[-1])

    def _step_flat(self, rows: np.ndarray, views: "_BatchViews") -> np.ndarray:
        good = (np.abs(rows) < mujoco.mjMAXVAL).all(axis=1)  # false for NaN, too
        # Bad rows run on the model's default state: MuJoCo would log each of them to a file.
        default = np.concatenate([self._model.qpos0, np.zeros(rows.shape[1] - self._model.nq)])
        rows = np.where(good[:, None], rows, default)
        stops = np.cumsum([view.shape[1] for view in views.inputs])
        for view, part in zip(views.inputs, np.split(rows, stops[:-1], axis=1), strict=True):
            view[:] = part
        views.batch.warning[:] = 0
        try:
            views.batch.step(nstep=SUBSTEPS, stage=mujoco.mjtStage.mjSTAGE_VEL.value)
        except mujoco_batch.SimulationError as error:
            good[error.ids] = False
        out = np.concatenate([*views.inputs[:-1], views.sensordata], axis=1).astype(np.float32)
        good &= np.isfinite(out).all(axis=1)
        # MuJoCo restarts a simulation that diverges and only leaves a warning behind.
        good &= ~views.batch.warning[:, _DIVERGED].any(axis=(1, 2))
        out[~good] = np.nan
        return out

    def _take(self, size: int) -> "_BatchViews":
        """A batch of `size` rows that nobody else steps meanwhile."""
        with self._lock:
            idle = self._idle.setdefault(size, [])
            if idle:
                return idle.pop()
        batch = mujoco_batch.Batch(self._model, size, min(self._threads, size))
        names = ("qpos", "qvel", "qacc_warmstart", "mocap_pos", "ctrl")
        inputs = tuple(batch.bind(name).reshape(size, -1) for name in names)
        # Bound before the first step, which would otherwise leave it zero.
        return _BatchViews(batch, inputs, batch.bind("sensordata"))


class _BatchViews(NamedTuple):
    batch: mujoco_batch.Batch
    inputs: tuple[np.ndarray, ...]  # each [size, n], float64, live: writing one sets the state
    sensordata: np.ndarray  # [size, nsensordata], refreshed by every step


# --- mjx: MuJoCo's own JAX implementation ------------------------------------------------------


def _import_mjx() -> ModuleType:
    """Import MJX late, as it takes seconds, and without its print about a missing warp."""
    with contextlib.redirect_stdout(io.StringIO()):
        from mujoco import mjx
    return mjx


def _mjx_step(model: mujoco.MjModel) -> StepFn:
    mjx = _import_mjx()
    device_model = mjx.put_model(model, impl="jax")
    template = mjx.make_data(model, impl="jax")

    def substep(data: Any, _: None) -> tuple[Any, None]:
        return mjx.step(device_model, data), None

    def step(state: PhysicsState, control: Control) -> tuple[PhysicsState, jax.Array]:
        data = template.replace(
            qpos=state.qpos,
            qvel=state.qvel,
            qacc_warmstart=state.warmstart,
            mocap_pos=control.mocap_pos,
            ctrl=control.ctrl,
        )
        data, _ = jax.lax.scan(substep, data, None, length=SUBSTEPS)
        # Stepping leaves sensors one substep behind the state, and all of ours are positions.
        data = mjx.sensor_pos(device_model, mjx.kinematics(device_model, data))
        next_state = PhysicsState(data.qpos, data.qvel, data.qacc_warmstart, data.mocap_pos)
        return next_state, data.sensordata

    return step


def _unpooled_rows(nv: int) -> int:
    """The largest power of two of [nv, nv] factorisations that stay in the thread that asks."""
    most = (_POOLED_WORK - 1) // max(1, nv**3 // 3)
    return 1 << max(0, most.bit_length() - 1)


def in_blocks(function: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """`function` of one row, such that any number of vmaps runs at most `rows` rows at a time."""
    block = jax.custom_batching.sequential_vmap(jax.vmap(function))
    whole = jax.custom_batching.custom_vmap(function)

    @whole.def_vmap
    def rule(size: int, batched: tuple[Any, ...], *args: Any) -> tuple[Any, Any]:
        blocks = -(-size // rows)
        spread = np.arange(blocks * min(rows, size)).reshape(blocks, -1) % size
        cut = lambda leaf, has_rows: leaf[spread] if has_rows else leaf[None][0 * spread]
        parts = jax.tree.map(cut, args, tuple(batched))
        out = jax.lax.map(lambda part: block(*part), parts)
        join = lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:size]
        return jax.tree.map(join, out), jax.tree.map(lambda _: True, out)

    return whole
