"""MuJoCo's import, which `MUJOCO_GL` does not disturb: only who draws needs OpenGL."""

import importlib
import os
import sys
from typing import Any

_VARIABLE = "MUJOCO_GL"


def _import_mujoco() -> None:
    """Import MuJoCo, but load OpenGL when somebody asks for `mujoco.GLContext` or a `Renderer`.

    MuJoCo itself loads at once what `MUJOCO_GL` names, and its import fails where that is missing.
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
