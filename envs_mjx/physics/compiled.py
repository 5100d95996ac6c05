"""The compiled half of the `native` backend: builds and loads `native.cc`.

The first use on a machine compiles it (3 s) against the headers of the installed jaxlib and
MuJoCo, and keeps the library beside JAX's compile cache. $FARL_NATIVE=callback does without it.
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

import jax
import jaxlib.version
import mujoco
import numpy as np

STEP = "farl_step"
"""Name of the custom call."""
_SOURCE = Path(__file__).with_name("native.cc")
_FLAGS = ("-O2", "-w", "-std=c++17", "-shared", "-fPIC")


class Library:
    """The loaded library, known to XLA by the name STEP."""

    def __init__(self, path: Path) -> None:
        """Load `path`; an OSError says that it does not fit this machine."""
        library = ctypes.CDLL(str(path))
        library.farl_add_scene.argtypes = [ctypes.c_int64, ctypes.c_void_p]
        library.farl_add_scene.restype = None
        jax.ffi.register_ffi_target(STEP, jax.ffi.pycapsule(library.farl_step), platform="cpu")
        self._library = library

    def add_scene(self, key: np.int64, model: mujoco.MjModel) -> None:
        """Keep a copy of `model` under `key`, for all programs that name it."""
        self._library.farl_add_scene(int(key), model._address)


@functools.cache
def library() -> Library | None:
    """Return the library; None if it is not wanted, or cannot be built (one warning)."""
    if os.environ.get("FARL_NATIVE") == "callback":
        return None
    try:
        return Library(_built())
    except OSError as error:
        reason = str(error).strip().splitlines()[0]
    warnings.warn(
        f"native physics runs through a callback, equal but slower: {reason}", stacklevel=2
    )
    return None


def _built() -> Path:
    """Return the compiled library, and build it if this source and these versions have none."""
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", "c++"), "g++"))), None)
    if compiler is None:
        raise FileNotFoundError("no C++ compiler; install g++")
    package = Path(mujoco.__file__).parent
    linked = next(package.glob("libmujoco*"))
    versions = jaxlib.version.__version__, mujoco.__version__, str(linked), *_FLAGS
    digest = hashlib.sha256(repr(versions).encode() + _SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(os.environ.get("FARL_CACHE_DIR") or "~/.cache/farl-jax/xla").expanduser()
    path = folder / f"native-{digest}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    include = f"-I{package / 'include'}", f"-I{jax.ffi.include_dir()}"
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        made = Path(scratch) / path.name
        command = [compiler, *_FLAGS, *include, str(_SOURCE), str(linked), "-o", str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"{compiler} could not compile {_SOURCE.name}: {done.stderr.strip()}")
        with contextlib.suppress(FileExistsError):
            made.replace(path)
    return path
