"""Calls of a verbose library with muted logs. The caller reports an error once."""

import gc
import logging
import os
import re
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

LOGGERS = ("absl", "asyncio")
LATE = 0.2
"""Seconds after an error in which TensorStore's threads may still call a closed event loop."""


class Failed(Exception):
    """The call failed. The message is the innermost reason, one line."""


def quietly(do: Callable[[], T]) -> T:
    """Return `do()`, without its logs.

    After an error, unfinished objects print warnings when they are collected. So they are collected
    here, and only the reason of the error is kept.

    Raises:
        Failed: `do` raised an Exception.
    """
    with _muted():
        try:
            return do()
        except Exception as error:
            reason = root_cause(error)
        time.sleep(LATE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of coroutines that are not awaited
            gc.collect()
    raise Failed(reason)


def root_cause(error: BaseException) -> str:
    """The innermost reason of a chain of exceptions on one line: the system's, if there is one."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    if code := re.search(r"os_error_code='(\d+)'", str(error)):  # TensorStore quotes it at the end
        return os.strerror(int(code[1]))
    reason = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {' '.join(reason.split())[:300]}"


@contextmanager
def _muted() -> Iterator[None]:
    """Mute LOGGERS, and tracebacks of this thread's garbage and of new threads."""
    found = [logging.getLogger(name) for name in LOGGERS]
    before = [logger.disabled for logger in found]
    others = {t for t in threading.enumerate() if not t.name.startswith("Dummy-")}  # C++'s threads
    others.discard(threading.current_thread())
    of_thread, of_garbage = threading.excepthook, sys.unraisablehook

    def thread_hook(args: Any) -> None:
        if args.thread in others:
            of_thread(args)

    def garbage_hook(args: Any) -> None:
        if threading.current_thread() in others:
            of_garbage(args)

    for logger in found:
        logger.disabled = True
    threading.excepthook, sys.unraisablehook = thread_hook, garbage_hook
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = of_thread, of_garbage
        for logger, disabled in zip(found, before, strict=True):
            logger.disabled = disabled
