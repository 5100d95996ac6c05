"""Standard streams that end no work: what nobody reads, or what cannot be written, is not said."""

import io
import os
import select
import sys


def steady() -> None:
    """Give this process standard streams on which no write fails.

    A reader that went away and a full device take nothing more. A descriptor that is closed leads
    to /dev/null, so that no file of ours gets its number. A character that the encoding lacks is
    written as its escape.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)


def _stream(descriptor: int, before: io.TextIOBase | None) -> io.TextIOWrapper:
    """A text stream in the encoding of the one `before`; that of errors goes out line by line."""
    if before is not None:
        before.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(descriptor)),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor == 2 or os.isatty(descriptor),
    )


class _Outlet(io.RawIOBase):
    """A descriptor that takes all it is given, and passes on what it can."""

    def __init__(self, descriptor: int) -> None:
        """Write to `descriptor`, which stays open when this is closed."""
        self._descriptor = descriptor

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: memoryview) -> int:
        """Count of bytes taken."""
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                return len(data)
