"""One pure step of the simulator behind three interchangeable backends.

`step(state, control) -> (next_state, sensordata)` advances one environment by one control step.
It handles a single environment and may be vmapped any number of times. If the simulator fails,
all outputs of that row are NaN and no other row is affected.
"""

import contextlib
import functools
import io
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from envs_mjx.core import Control, PhysicsState
from envs_mjx.errors import EnvError, closest
from envs_mjx.physics.native import cores, native_step

BACKENDS = ("native", "mjx", "warp")
SUBSTEPS = 5  # MetaWorld's frame skip; each is model.opt.timestep = 2.5 ms

# Without these two, XLA:CPU takes seconds for one forward kinematics of a 13-link arm (the fusion
# emitter recomputes parents), and hangs with 512 environments on two cores.
_CPU_OPTIONS = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_enable_concurrency_optimized_scheduler": False,
}
# From B n^3 / 3 = this on, XLA:CPU computes B Cholesky factors [n, n] in its thread pool. One of
# its threads waits for them, and sometimes all threads wait for ever (jaxlib 0.10).
_POOLED_WORK = 200_000


StepFn = Callable[[PhysicsState, Control], tuple[PhysicsState, jax.Array]]


class Physics(NamedTuple):
    """A backend, ready to step one model."""

    step: StepFn
    compiler_options: Mapping[str, bool]  # for every `jax.jit` that contains `step`
    host_threads: int = 0
    """Threads of the host that `step` uses, if threads may run it side by side; else 0."""


def make_physics(model: mujoco.MjModel, backend: str, threads: int | None = None) -> Physics:
    """Return the step of `model` on `backend`.

    Args:
      model: the thin model of `scene.build_physics_model`.
      backend: "native" (C MuJoCo on the host's threads, whatever the default device), "mjx"
        (JAX, any device) or "warp" (NVIDIA, needs the extra `warp`).
      threads: threads of the native backend; by default one a core. Results do not depend on it.

    Raises:
      EnvError: the backend is unknown or cannot run here.
    """
    if backend == "native":
        threads = threads or cores()
        step, at_once = native_step(model, threads, SUBSTEPS)
        return Physics(step, {}, threads if at_once else 0)
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
    """Return the options that MJX needs on a CPU, as far as this jax knows them."""
    if jax.default_backend() != "cpu":
        return {}
    known = {}
    for name, value in _CPU_OPTIONS.items():
        probe = jax.jit(lambda x: x + 1.0, compiler_options={name: value})
        try:
            probe.lower(0.0).compile()
        except jax.errors.JaxRuntimeError:
            continue  # a release that drops a flag no longer needs it
        known[name] = value
    return known


# --- mjx: MuJoCo's own JAX implementation ------------------------------------------------------


def _import_mjx() -> ModuleType:
    """Import MJX late, since it takes seconds, and hide its message about a missing warp."""
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
        # Sensors lag the state by one substep; all of ours are positions.
        data = mjx.sensor_pos(device_model, mjx.kinematics(device_model, data))
        next_state = PhysicsState(data.qpos, data.qvel, data.qacc_warmstart, data.mocap_pos)
        return next_state, data.sensordata

    return step


def _unpooled_rows(nv: int) -> int:
    """Return the largest power of two of [nv, nv] factorisations that avoid the thread pool."""
    most = (_POOLED_WORK - 1) // max(1, nv**3 // 3)
    return 1 << max(0, most.bit_length() - 1)


def in_blocks(function: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """Return `function` of one row so that its vmaps run at most `rows` rows at a time."""
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
