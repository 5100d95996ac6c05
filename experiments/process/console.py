"""What a command says: plain text. Names of files and tasks are no markup, emoji or numbers."""

import shlex
import sys
from typing import Any

from rich.console import Console


def command_typed() -> str:
    """The command line of this process, as a shell would take it again."""
    return shlex.join(["farl", *sys.argv[1:]])


def plain_console(*, quiet: bool = False) -> Console:
    """A console that prints text as it is, wide enough for the tables where there is no terminal.

    Styles are arguments of `print`, or parts of a `rich.text.Text`.
    """
    terminal = sys.stdout is not None and sys.stdout.isatty()
    width = None if terminal else 110
    return Console(markup=False, emoji=False, highlight=False, quiet=quiet, width=width)


def warn(text: Any) -> None:
    """Say on stderr, in one line, what the user should know."""
    print(f"farl: warning: {one_line(text)}", file=sys.stderr)


def one_line(text: Any) -> str:
    """The words of `text` with one space between them; what cannot be printed as its escape."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
