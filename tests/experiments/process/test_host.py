"""What the host has set is not our configuration: JAX, OpenGL, home, cache, git."""

import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments.process import compile_cache, jax_settings, machine
from farl_jax.devices import DeviceError
from tests.experiments.phases.kill_harness import prepare

ROOT = Path(__file__).parents[3]
COMMAND = "from experiments.entry import entry; entry()"


def python(code, *words, cwd=ROOT, **variables):
    """A finished process of this Python with these variables."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-c", code, *words]
    options = {"capture_output": True, "text": True, "timeout": 240, "cwd": cwd}
    return subprocess.run(command, env=environment, **options)


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"JAX_PLATFORMS": "cuda"}, "JAX finds no device of JAX_PLATFORMS=cuda: "),
        ({"JAX_PLATFORMS": "rubbish"}, "JAX finds no device.*rubbish.*; unset it, or choose cpu"),
        ({"JAX_DEFAULT_DEVICE": "tpu"}, "JAX finds no device of JAX_DEFAULT_DEVICE=tpu: "),
        ({"JAX_ENABLE_X64": "maybe"}, "JAX does not start: .*JAX_ENABLE_X64.\\. Correct or unset"),
    ],
    ids=str,
)
def test_jax_that_does_not_start_is_one_line(tmp_path, variables, said):
    if "cuda" in variables.values() and jax.default_backend() == "gpu":
        pytest.skip("here is one")
    for words in (["run", "--preset", "smoke"], ["--version"]):
        done = python(COMMAND, *words, cwd=tmp_path, **variables)
        assert done.returncode == 2 and re.search(f"^farl: {said}", done.stderr)
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_any_error_of_a_device_is_ours_to_tell(monkeypatch):
    def fail():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    with pytest.raises(DeviceError, match=r"JAX finds no device: .*JAX_PLATFORMS=cpu"):
        jax_settings.find_devices()


def test_settings_of_jax_that_decide_numbers_are_pinned():
    changed = {
        "jax_enable_x64": True,
        "jax_random_seed_offset": 5,
        "jax_default_prng_impl": "rbg",
        "jax_threefry_partitionable": False,
        "jax_numpy_rank_promotion": "raise",
        "jax_numpy_dtype_promotion": "strict",
        "jax_transfer_guard": "disallow",
        "jax_default_matmul_precision": "bfloat16",
    }
    numbers = lambda: float(jax.random.normal(jax.random.key(3), (4,)).sum())
    before = numbers()
    try:
        for name, value in changed.items():
            jax.config.update(name, value)
    finally:
        machine.prepare_jax()
    assert numbers() == before
    assert jax.numpy.zeros(2).dtype == jax.numpy.float32
    assert jax_settings.PINNED.keys() <= jax.config.values.keys()  # of the version that we test


RESTORE = """
import sys
from pathlib import Path
from experiments.process.console import plain_console
from experiments.runs.run import open_run
from experiments.process.machine import prepare_jax
prepare_jax()
run, folder = open_run(Path(sys.argv[1]), plain_console())
with folder:
    print(sum(abs(leaf).sum() for leaf in __import__("jax").tree.leaves(run.offline_result())))
"""


def test_a_checkpoint_is_restored_under_double_precision(tmp_path):
    prepare(tmp_path / "run", toy=False)
    done = [python(RESTORE, str(tmp_path / "run"), JAX_ENABLE_X64=v) for v in ("1", "0")]
    assert [d.returncode for d in done] == [0, 0], done[0].stderr[-500:]
    assert done[0].stdout == done[1].stdout


IMPORT = """
import os, sys
wished = os.environ.get("MUJOCO_GL")
import envs_mjx, mujoco
envs_mjx.make("bounded_push", "native")
assert os.environ.get("MUJOCO_GL") == wished and not hasattr(mujoco, "no_such_name")
assert not [name for name in sys.modules if name.startswith(("OpenGL", "glfw"))]
try:
    print(mujoco.GLContext.__module__)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("wish", "context"),
    [
        ("rubbish", "RuntimeError invalid value for environment variable MUJOCO_GL: rubbish"),
        ("off", "AttributeError module 'mujoco' has no attribute 'GLContext'"),
        ("glfw", "mujoco.glfw"),
    ],
)
def test_nothing_but_drawing_looks_for_opengl(wish, context):
    done = python(IMPORT, MUJOCO_GL=wish, PYOPENGL_PLATFORM="rubbish")
    assert done.returncode == 0, done.stderr
    shown = done.stdout.strip()
    assert shown == context or (wish == "glfw" and "Error" in shown)


@pytest.fixture
def cache_settings():
    """JAX's cache as it was."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.mark.usefixtures("cache_settings")
def test_without_a_home_there_is_a_warning_and_no_cache(monkeypatch):
    def nobody(_):
        raise KeyError("uid not found")

    for name in ("HOME", "FARL_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    jax.config.update("jax_compilation_cache_dir", None)
    with pytest.warns(UserWarning, match="no compile cache.*home directory; set FARL_CACHE_DIR"):
        machine.prepare_jax()
    assert jax.config.jax_compilation_cache_dir is None


DAMAGE = """
import sys, warnings, zlib
from pathlib import Path
warnings.simplefilter("error")
import jax, jax.numpy as jnp
from experiments.process.machine import prepare_jax
folder = Path(sys.argv[1])
prepare_jax(folder)
def compiled():
    jax.clear_caches()
    return float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(3.0)))
first = compiled()
whole = {path: path.read_bytes() for path in folder.glob("*-cache")}
assert whole
for damage in (
    lambda data: b"",
    lambda data: data[: len(data) // 2],
    lambda data: b"rubbish" + data,
    lambda data: zlib.compress(b"rubbish"),
):
    for path, data in whole.items():
        path.write_bytes(damage(data))
    assert compiled() == first
    for path, data in whole.items():
        assert len(path.read_bytes()) > len(data) // 2 and path.read_bytes() != damage(data)
"""


def test_a_damaged_cache_is_mended_in_silence(tmp_path):
    done = python(DAMAGE, str(tmp_path / "cache"))
    assert (done.returncode, done.stderr) == (0, "")


def test_a_cache_that_cannot_be_written_is_told_once_and_half_a_file_goes(tmp_path, monkeypatch):
    def write(key):
        (tmp_path / f"{key}-cache").write_text("half")
        raise OSError(28, "No space left on device")

    trying = compile_cache._writing(write)
    folder = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with pytest.warns(UserWarning, match="No space left on device; set FARL_CACHE_DIR") as said:
            trying("a")
            trying("b")
    finally:
        jax.config.update("jax_compilation_cache_dir", folder)
    assert len(said) == 1 and list(tmp_path.iterdir()) == []


def test_gits_own_variables_change_nothing(tmp_path, monkeypatch):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for folder in (ours, theirs):
        git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(folder)]
        subprocess.run(["git", "init", "-q", str(folder)], check=True)
        words = ["commit", "-q", "--allow-empty", "-m", folder.name]
        subprocess.run([*git, *words], check=True)
    state = machine._git_state(ours)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    for name, value in (
        ("GIT_DIR", str(theirs / ".git")),
        ("GIT_WORK_TREE", str(theirs)),
        ("GIT_INDEX_FILE", str(tmp_path / "no index")),
        ("GIT_CEILING_DIRECTORIES", str(tmp_path)),
        ("GIT_OBJECT_DIRECTORY", str(tmp_path)),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            assert machine._git_state(ours) == state, name


def test_words_alone_are_read_without_jax():
    """It takes longer than all else at the start: neither help nor a refusal waits for it."""
    code = (
        "import sys; from experiments.cli import main; codes = [main(w.split()) for w in "
        "('--help', 'run --help', 'run --online.discount 2', 'dance')]; "
        "print(codes, {'jax', 'mujoco', 'numpy', 'matplotlib'} & sys.modules.keys())"
    )
    assert python(code).stdout.splitlines()[-1] == "[0, 0, 2, 2] set()"
