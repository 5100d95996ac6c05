"""The only module that uses matplotlib: its own defaults, plain text, no display, no pyplot.

The user's settings of matplotlib, in files or variables, do not change a figure.
"""

import functools
import io
import logging
import os
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from farl_jax.storage.files import replacing

_VARIABLES = ("MPLBACKEND", "MATPLOTLIBRC")
_FILE, _DATA = "matplotlibrc", "mpl-data"


@contextmanager
def own_defaults() -> Iterator[None]:
    """Draw with matplotlib's defaults in this context, then restore the user's settings.

    It can be a decorator.
    """
    matplotlib, log = _matplotlib(), logging.getLogger("matplotlib")
    level, kept = log.level, ("backend", "interactive")
    defaults = {k: v for k, v in matplotlib.rcParamsDefault.items() if k not in kept}
    with warnings.catch_warnings(), matplotlib.rc_context():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # it is drawn as a box
        warnings.filterwarnings("ignore", category=matplotlib.MatplotlibDeprecationWarning)
        log.setLevel(logging.ERROR)
        try:
            matplotlib.rcParams.update(defaults)
            yield
        finally:
            log.setLevel(level)


@functools.cache
def _matplotlib() -> ModuleType:
    """Import matplotlib without the user's settings, because a bad one would end the import.

    Settings files are hidden one by one. There is no other way to ignore one in the current folder.
    """
    if "matplotlib" in sys.modules:
        return sys.modules["matplotlib"]
    theirs = {name: os.environ.pop(name) for name in _VARIABLES if name in os.environ}
    log, exists = logging.getLogger("matplotlib"), os.path.exists

    def ours(path: Any) -> bool:
        folder, name = os.path.split(str(path))
        return (name != _FILE or os.path.basename(folder) == _DATA) and exists(path)

    os.path.exists = ours
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        import matplotlib
    finally:
        os.path.exists = exists
        os.environ.update(theirs)
        log.setLevel(level)
    return matplotlib


def new_figure(width: float, height: float) -> Any:
    """An empty figure, in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Any, path: Path, formulas: Collection[Any] = (), **options: Any) -> Path:
    """Write the figure in the format of its suffix, and return `path`.

    Text is not parsed as a formula, because folder names may have dollar signs. The exceptions are
    `formulas` and the powers of logarithmic axes. `options` are those of `Figure.savefig`.
    """
    write_plainly(figure, formulas)
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:] or None, **options)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(picture.getvalue())
    return path


def write_plainly(figure: Any, formulas: Collection[Any] = ()) -> None:
    """Parse no text as a formula, except `formulas` and the powers of logarithmic axes."""
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    powers = {
        label
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        if isinstance(axis.get_major_formatter(), LogFormatter)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for label in (tick.label1, tick.label2)
    }
    for text in figure.findobj(Text):
        text.set_parse_math(text in powers or text in formulas)
        text.set_text(text.get_text().encode("utf-8", "backslashreplace").decode())
