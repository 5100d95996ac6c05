"""Notes about cells that failed."""

import traceback
from typing import Any

from experiments.errors import UserError

Row = dict[str, Any]

SILENT = "it ended without a message (killed, or out of memory or time); run the command again"


class Unmade(UserError):
    """A result that another process should have made, with its note."""

    def __init__(self, told: Row) -> None:
        """`told` has the error's line, and its traceback if there is one."""
        super().__init__(told["error"])
        self.told = told


def described(error: Exception) -> Row:
    """An error as a row: its line and its traceback."""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {"error": line, "traceback": "".join(traceback.format_exception(error))}
