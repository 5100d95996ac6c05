"""Import the user's code, named as "module:name", also from the current folder."""

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from types import ModuleType
from typing import Any

import jax
import mujoco

from envs_mjx.errors import EnvError, shown


def load_class(path: str) -> type:
    """Return the class that "module:Class" names.

    Raises:
      EnvError: the form is wrong, there is no such module or class, or its import failed. The
        message is one line and names the line of the user's file.
    """
    module, found = _load(path, "module:Class, as my_tasks:MyTask")
    if not isinstance(found, type):
        what = "has no such class" if found is None else "has something else of that name"
        raise EnvError(f"cannot import {shown(path)}: {_described(module)} {what}")
    return found


def load_function(path: str) -> tuple[ModuleType, Callable[..., Any]]:
    """Return the module and the function, or another callable, that "module:function" names.

    Raises:
      EnvError: as `load_class`.
    """
    module, found = _load(path, "module:function, as my_robot:make")
    if not callable(found):
        what = "has no such function" if found is None else "has something else of that name"
        raise EnvError(f"cannot import {shown(path)}: {_described(module)} {what}")
    return module, found


def _load(path: str, form: str) -> tuple[ModuleType, Any]:
    """Return the imported module of a path, and its attribute of that name or None.

    The current folder is searched last, and only during the import, so it never shadows an
    installed module.
    """
    name, _, own = path.partition(":")
    if not (all(part.isidentifier() for part in name.split(".")) and own.isidentifier()):
        raise EnvError(f"cannot import {shown(path)}: give {form}")
    with blaming(path), _current_folder_last():
        module = _import(path, name)
    return module, getattr(module, own, None)


@contextmanager
def blaming(path: str) -> Generator[None, None, None]:
    """Turn any exception of the code that `path` names into a one-line EnvError."""
    try:
        yield
    except EnvError:
        raise
    except KeyboardInterrupt:  # from the user, not from that code
        raise
    except BaseException as error:  # also SystemExit
        said = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
        raise EnvError(f"{shown(path)} does not work: {_place(error)}{said}") from error


def _import(path: str, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not f"{name}.".startswith(f"{error.name}."):
            raise  # the module exists; one of its own imports does not
        raise EnvError(
            f"cannot import {shown(path)}: there is no module {shown(str(error.name))}, installed "
            f"or in {_here() or 'the current folder'}; give module:Class"
        ) from error


def _here() -> str | None:
    """The current folder, or None if it was deleted."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


@contextmanager
def _current_folder_last() -> Generator[None, None, None]:
    importlib.invalidate_caches()
    added = [here] if (here := _here()) else []
    sys.path += added
    try:
        yield
    finally:
        sys.path[:] = [folder for folder in sys.path if folder is not here]


def _described(module: ModuleType) -> str:
    """The module and its file, and any file in the current folder that it hides."""
    top = module.__name__.partition(".")[0]
    hidden = PathFinder.find_spec(top, [_here() or os.curdir])
    text = f"module {module.__name__} ({getattr(module, '__file__', None) or 'built in'})"
    if hidden is None or hidden.origin == getattr(sys.modules[top], "__file__", None):
        return text
    return f"{text}, which is installed and hides {hidden.origin or top} here: rename yours; it"


def _place(error: BaseException) -> str:
    """`FILE, line N: ` of the user's code; empty if only our or library code ran."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}: "
    libraries = [os.path.dirname(module.__file__) for module in (importlib, jax, mujoco)]
    ours = (os.path.dirname(__file__), *libraries, "<frozen importlib")
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if not frame.filename.startswith(ours)]
    top_level = [frame for frame in frames if frame.name == "<module>"]
    own = top_level[-1:] or frames[:1]
    return f"{own[0].filename}, line {own[0].lineno}: " if own else ""
