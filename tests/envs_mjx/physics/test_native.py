"""Native physics: the compiled call gives the callback's numbers, and what happens without it."""

import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

import envs_mjx
from envs_mjx.physics import compiled, native

SUBSTEPS = 5


@pytest.fixture(scope="module")
def library():
    if (found := compiled.library()) is None:
        pytest.skip("no C++ compiler here")
    return found


def rows_of(env, number: int) -> jax.Array:
    """Rows [number, n] of fresh episodes, whose hand has 1 cm to go."""
    physics = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), number)).physics
    mocap = physics.mocap_pos.reshape(number, -1) + 0.01
    ctrl = jnp.ones((number, env.model.nu))
    return jnp.concatenate([physics.qpos, physics.qvel, physics.warmstart, mocap, ctrl], axis=1)


@pytest.mark.parametrize("task", ["bounded_soccer", "franka_disturbed_push"])
def test_the_compiled_call_gives_the_numbers_of_the_callback(library, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo logs divergence there
    env = envs_mjx.make(task, backend="native")
    rows = rows_of(env, 8)
    rows = rows.at[1, 0].set(jnp.nan).at[2, 2].set(1e11).at[3, 20].set(1e9)
    expected = jax.jit(jax.vmap(native.by_callback(env.model, 2, SUBSTEPS)))(rows)
    for threads in (1, 2, 5):
        step = native.by_custom_call(library, env.model, threads, SUBSTEPS)
        np.testing.assert_array_equal(jax.jit(jax.vmap(step))(rows), expected)
        two_axes = jax.jit(jax.vmap(jax.vmap(step)))(rows.reshape(2, 4, -1))
        np.testing.assert_array_equal(two_axes.reshape(expected.shape), expected)
        np.testing.assert_array_equal(jax.jit(step)(rows[0]), expected[0])
    bad = np.isnan(expected).any(axis=1)
    np.testing.assert_array_equal(bad, [False, True, True, True] + 4 * [False])


def test_a_scene_is_named_by_its_numbers(library):
    model = mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>")
    other = mujoco.MjModel.from_xml_string("<mujoco><worldbody/></mujoco>")
    assert native._hash(model) == native._hash(other)
    other.opt.timestep *= 2
    assert native._hash(model) != native._hash(other)


def test_a_program_of_an_unknown_scene_fails_in_one_line(library):
    call = jax.ffi.ffi_call(compiled.STEP, jax.ShapeDtypeStruct((3,), jnp.float32))
    options = {"scene": np.int64(7), "threads": np.int64(1), "substeps": np.int64(1)}
    with pytest.raises(jax.errors.JaxRuntimeError, match="has not built the scene"):
        jax.block_until_ready(call(jnp.zeros(3), **options))


CODE = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import envs_mjx
    env = envs_mjx.make("bounded_push", backend="native")
print(env.host_threads, *[str(w.message) for w in seen if "native physics" in str(w.message)])
"""


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"FARL_NATIVE": "callback"}, "0"),
        ({"PATH": "/nowhere"}, "0 native physics .* callback, .*: no C.. compiler; install g.."),
        ({"CXX": "false"}, "0 native physics .* could not compile native.cc"),
    ],
)
def test_without_a_compiled_library_there_is_a_callback_and_one_line(tmp_path, variables, said):
    variables = os.environ | {"FARL_CACHE_DIR": str(tmp_path)} | variables
    words = [sys.executable, "-c", CODE]
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=variables)
    assert re.fullmatch(said + ".*", done.stdout.strip()), done.stdout


def test_the_library_is_built_once(library, tmp_path, monkeypatch):
    monkeypatch.setenv("FARL_CACHE_DIR", str(tmp_path / "new"))
    first = compiled._built()
    made = first.stat().st_mtime_ns
    assert compiled._built() == first and first.stat().st_mtime_ns == made
    assert [path.name for path in first.parent.iterdir()] == [first.name]
