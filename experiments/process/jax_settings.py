"""JAX's settings that decide numbers, or whether a run works: set here for every host.

JAX would read them from environment variables such as JAX_ENABLE_X64. The user chooses only JAX's
devices and its debugging.
"""

import os

import jax

from farl_jax.devices import DeviceError

PINNED = {
    "jax_enable_x64": False,
    "jax_default_matmul_precision": "highest",  # TF32 changes results
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_random_seed_offset": 0,
    "jax_legacy_prng_key": "allow",
    "jax_high_dynamic_range_gumbel": False,
    "jax_softmax_custom_jvp": False,
    "jax_use_direct_linearize": True,
    "jax_allow_f16_reductions": True,
    "jax_disable_most_optimizations": False,
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_optimization_level": "UNKNOWN",
    "jax_memory_fitting_level": "O2",
    "jax_compiler_enable_remat_pass": True,
    "jax_enable_pgle": False,
    "jax_compilation_cache_expect_pgle": False,
    "jax_compilation_cache_max_size": -1,
    "jax_raise_persistent_cache_errors": False,
    "jax_persistent_cache_min_entry_size_bytes": 0,
    "jax_transfer_guard": "allow",
    "jax_thread_guard": False,
    "jax_no_tracing": False,
    "jax_no_execution": False,
    "jax_disallow_mesh_context_manager": False,
    "jax_remove_size_one_mesh_axis_from_type": False,
}
"""JAX's defaults, except the precision of matrix products."""

_CHOICES = ("JAX_PLATFORMS", "JAX_PLATFORM_NAME", "JAX_DEFAULT_DEVICE")
"""Variables by which a user chooses devices."""
_HOLD = "XLA_PYTHON_CLIENT_PREALLOCATE"
"""JAX reads it when it finds its devices."""


def pin() -> None:
    """Set those of `PINNED` that this JAX version has. Call it before anything is traced."""
    for name, value in PINNED.items():
        if name in jax.config.values:
            jax.config.update(name, value)


def find_devices(*, hold_memory: bool = True) -> None:
    """Let JAX find its devices.

    On a GPU, JAX then holds most of the memory. Without `hold_memory` it takes only what it uses,
    and child processes still hold theirs as usual.

    Raises:
        DeviceError: there is no device of the wanted kind.
    """
    default = jax.config.jax_default_device
    before = os.environ.get(_HOLD)
    if not hold_memory:
        os.environ[_HOLD] = "false"
    try:
        jax.devices(default if isinstance(default, str) else None)
    except Exception as error:  # JAX raises several types
        wanted = [name for name in _CHOICES if os.environ.get(name)]
        reason = str(error).split(" (set JAX_PLATFORMS")[0].rstrip(".") or "there is none here"
        setting = f" of {wanted[0]}={os.environ[wanted[0]]}" if wanted else ""
        way = "unset it, or choose cpu" if wanted else "JAX_PLATFORMS=cpu takes the CPU"
        raise DeviceError(f"JAX finds no device{setting}: {reason}; {way}") from error
    finally:
        if not hold_memory:
            del os.environ[_HOLD]
        if before is not None:
            os.environ[_HOLD] = before
