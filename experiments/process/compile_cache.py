"""JAX's cache of compiled programs, with damaged files and failed writes handled.

JAX warns of a damaged file at every start and keeps it. So its read and write functions are
wrapped. They are not public. A test fails if a JAX version changes them.
"""

import contextlib
import functools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache

_SUFFIX = "-cache"


def mend() -> None:
    """From now on, remove files that cannot be read, and warn once if none can be written.

    The program is then compiled and stored again. A second call does nothing.
    """
    for name, wrap in (
        ("get_executable_and_time", _reading),
        ("put_executable_and_time", _writing),
    ):
        function = getattr(compilation_cache, name)
        if not hasattr(function, "__wrapped__"):
            setattr(compilation_cache, name, wrap(function))


def _reading(read: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(read)
    def mending(key: str, *given: Any, **named: Any) -> Any:
        try:
            return read(key, *given, **named)
        except Exception:  # a damaged file may raise any
            _remove(key)
            return None, None

    return mending


def _writing(write: Callable[..., Any]) -> Callable[..., Any]:
    told = False

    @functools.wraps(write)
    def trying(key: str, *given: Any, **named: Any) -> None:
        nonlocal told
        try:
            write(key, *given, **named)
        except OSError as error:
            _remove(key)  # it may be half written
            if not told:
                told = True
                folder, reason = jax.config.jax_compilation_cache_dir, error.strerror or error
                text = f"compiled programs are not stored: {folder}: {reason}; set FARL_CACHE_DIR"
                warnings.warn(text, stacklevel=2)

    return trying


def _remove(key: str) -> None:
    with contextlib.suppress(OSError):
        Path(jax.config.jax_compilation_cache_dir, f"{key}{_SUFFIX}").unlink(missing_ok=True)
