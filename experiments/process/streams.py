"""Standard streams whose failures never end the work: lost output is dropped."""

import io
import os
import select
import sys


def steady() -> None:
    """Give this process standard streams on which no write fails.

    Output for a closed pipe or a full device is dropped. A closed descriptor is opened as
    /dev/null, so that no file of ours gets its number. Characters that the encoding lacks are
    escaped.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free one
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)


def _stream(descriptor: int, before: io.TextIOBase | None) -> io.TextIOWrapper:
    """A text stream with the encoding of stream `before`. stderr is line buffered."""
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(descriptor)),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )


class _Outlet(io.RawIOBase):
    """A descriptor that accepts all data, and writes what it can."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays open when this object is closed."""
        self._descriptor = descriptor

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: memoryview) -> int:
        """Write, and return the number of bytes."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                return len(data)
