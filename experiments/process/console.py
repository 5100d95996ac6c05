"""Console output: plain text, in which file and task names are not read as markup."""

import shlex
import sys
from typing import Any

from rich.console import Console


def command_typed() -> str:
    """The command line of this process, quoted for a shell."""
    return shlex.join(["farl", *sys.argv[1:]])


def plain_console(*, quiet: bool = False) -> Console:
    """A console that prints text as it is. Without a terminal it is wide enough for the tables.

    Styles are arguments of `print`, or parts of a `rich.text.Text`.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = None if terminal else 110
    return Console(markup=False, emoji=False, highlight=False, quiet=quiet, width=width)


def warn(text: Any) -> None:
    """Print a warning as one line on stderr."""
    print(f"farl: warning: {one_line(text)}", file=sys.stderr)


def one_line(text: Any) -> str:
    """The words of `text` on one line. Characters that cannot be printed are escaped."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
