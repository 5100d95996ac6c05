"""`farl` as a process: streams that end no work, and signals that are heard from the start."""

import os
import sys
from typing import NoReturn

from experiments import signals, streams


def entry() -> NoReturn:
    """Run the command line of this process and end it with the exit code.

    After a signal the process ends at once: Python's teardown would meet threads of XLA at work.
    """
    words = sys.argv[1:]
    signals.end_at_once(words)
    streams.steady()
    code = _run(words)
    sys.stdout.flush()
    sys.stderr.flush()
    if code > 128:
        os._exit(code)
    sys.exit(code)


def _run(words: list[str]) -> int:
    try:
        import jax  # noqa: F401  reads its variables of the environment
    except ValueError as error:
        print(f"farl: JAX does not start: {error}; correct or unset it", file=sys.stderr)
        return 2
    from experiments.cli import main

    return main(words)
