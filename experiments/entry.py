"""`farl` as a process: safe standard streams, and signals handled from the start."""

import os
import sys
from typing import NoReturn

from experiments.process import signals, streams


def entry() -> NoReturn:
    """Run the command line of this process, and end it with the exit code.

    After a signal it ends at once, because XLA's threads may still run during Python's teardown.
    """
    words = sys.argv[1:]
    signals.end_at_once(words)
    streams.steady()
    from experiments.cli import main

    code = main(words)
    sys.stdout.flush()
    sys.stderr.flush()
    if code > 128:
        os._exit(code)
    sys.exit(code)
