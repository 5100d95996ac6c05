"""What a cell that could not be made leaves behind."""

import traceback
from typing import Any

from experiments.errors import UserError

Row = dict[str, Any]

SILENT = "it ended without a word: killed, or out of memory or time; the same command goes on"


class Unmade(UserError):
    """A result that another process was to make, with what that process said of it."""

    def __init__(self, told: Row) -> None:
        """`told` has the error's line, and its traceback where it left one."""
        super().__init__(told["error"])
        self.told = told


def described(error: Exception) -> Row:
    """An error as a row says it: its line, and its traceback."""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return {"error": line, "traceback": "".join(traceback.format_exception(error))}
