"""Import MuJoCo without OpenGL, whatever `MUJOCO_GL` says: only drawing needs it."""

import importlib
import os
import sys
from typing import Any

_VARIABLE = "MUJOCO_GL"


def _import_mujoco() -> None:
    """Import MuJoCo, and load OpenGL at the first use of `mujoco.GLContext` or a `Renderer`.

    MuJoCo's own import loads the library that `MUJOCO_GL` names, and fails if it is missing.
    """
    theirs = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = "disable"
    try:
        import mujoco
        from mujoco.rendering.classic import gl_context
    finally:
        del os.environ[_VARIABLE]
        if theirs is not None:
            os.environ[_VARIABLE] = theirs

    def late(name: str) -> Any:
        if name == "GLContext" and name in vars(importlib.reload(gl_context)):
            return vars(gl_context)[name]
        raise AttributeError(f"module 'mujoco' has no attribute {name!r}")

    mujoco.__getattr__ = gl_context.__getattr__ = late


if "mujoco" not in sys.modules:
    _import_mujoco()
