"""SIGTERM, SIGINT, SIGUSR2: training ends its update and saves; all else stops at once.

Python runs a signal's handler in the main thread, which waits during a compilation or a long
compiled call. So a second thread also receives the signal. It ends the process if the main thread
has not ended it within `GRACE`. The last checkpoint remains.
"""

import os
import select
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

GRACE = 8.0
"""Most seconds from a signal to the end. Ending the process takes another second or two."""
HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)  # Slurm sends SIGUSR2
RESUMABLE = ("run", "demos", "offline", "online")
"""Commands with --resume. The others continue or start again without it."""


class Stopped(KeyboardInterrupt):
    """The process must end. The text, if any, says what was saved."""


@dataclass
class _Request:
    signum: int | None = None
    deferred: bool = False


_request = _Request()


def requested() -> bool:
    """Whether a signal asked the process to end."""
    return _request.signum is not None


@contextmanager
def deferred() -> Iterator[None]:
    """In this context a first signal only makes `requested` true, and training checks it.

    A second signal raises `Stopped` at once. A request that is not handled raises it at the end.
    """
    _request.deferred = True
    try:
        yield
    finally:
        _request.deferred = False
    if requested():
        raise Stopped


def end_at_once(words: Sequence[str]) -> None:
    """From now on, outside of `guarded`, a signal ends the process and prints one line.

    It is for the start, when there is nothing to save. An import may turn an exception into any
    other.
    """
    for s in _wanted():
        signal.signal(s, lambda signum, _: _end(words, signum, ""))


def guarded(words: Sequence[str], command: Callable[[], int]) -> int:
    """Return the exit code of `command()`, or 128 + the signal that ended it, after one line.

    The line repeats the command line `words`.
    """
    try:
        with _heard(words):
            return command()
    except Exception as error:
        if not (requested() and _tells_of_stop(error)):
            raise
        note = ""
    except KeyboardInterrupt as stop:
        note = str(stop)
    signum, _request.signum = _request.signum or signal.SIGINT, None
    print(_line(words, signum, note), file=sys.stderr)
    return 128 + signum


def _tells_of_stop(error: BaseException | None) -> bool:
    """Whether `Stopped` caused the error, inside a host callback of JAX or an import."""
    while error is not None:
        if isinstance(error, Stopped) or Stopped.__name__ in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def _line(words: Sequence[str], signum: int, note: str) -> str:
    again = ["farl", *(word for word in words if word != "--overwrite")]  # already done
    if words and words[0] in RESUMABLE and "--resume" not in words:
        again.append("--resume")
    name = signal.Signals(signum).name
    return f"farl: stopped by {name}{note and ', ' + note}; continue with: {shlex.join(again)}"


def _end(words: Sequence[str], signum: int, note: str) -> None:
    with suppress(OSError):  # stderr may be closed
        os.write(2, f"{_line(words, signum, note)}\n".encode(errors="backslashreplace"))
    os._exit(128 + signum)


def _wanted() -> list[int]:
    """Signals that are not ignored. nohup and `&` ignore some."""
    return [s for s in HEARD if signal.getsignal(s) is not signal.SIG_IGN]


def _on_signal(signum: int, _: FrameType | None) -> None:
    first, _request.signum = not requested(), signum
    if not (first and _request.deferred):
        raise Stopped


def _send_again(lost: Any) -> None:
    """Python's hook for exceptions that cannot propagate: `Stopped` in a callback of the collector.

    A thread sends the signal again after that callback.
    """
    if isinstance(lost.exc_value, Stopped):
        threading.Timer(0.05, os.kill, (os.getpid(), _request.signum)).start()
    else:
        sys.__unraisablehook__(lost)


@contextmanager
def _heard(words: Sequence[str]) -> Iterator[None]:
    """Handle the signals in this context. In other threads than the main one, do nothing."""
    _request.signum = None
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    before = {s: signal.signal(s, _on_signal) for s in _wanted()}
    listener = signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    watch = threading.Thread(target=_watch, args=(ours, words), daemon=True)
    watch.start()
    hook, sys.unraisablehook = sys.unraisablehook, _send_again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        for s, handler in before.items():
            signal.signal(s, handler)
        signal.set_wakeup_fd(listener)
        os.close(theirs)  # `watch` ends
        watch.join()
        os.close(ours)


def _watch(pipe: int, words: Sequence[str]) -> None:
    """End the process `GRACE` seconds after a signal, unless the pipe is closed before."""
    deadline, signum = None, 0
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([pipe], [], [], left)[0]:
            break
        heard = os.read(pipe, 1)
        if not heard:
            return
        if heard[0] in HEARD and deadline is None:
            deadline, signum = time.monotonic() + GRACE, heard[0]
    _end(words, signum, "in the middle of a long computation")
