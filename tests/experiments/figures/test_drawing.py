"""Figures are drawn under matplotlib's own defaults and with plain text, whatever its user set."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib
import pytest
from matplotlib.figure import Figure

from experiments.figures import drawing, style
from experiments.figures import paper as paper_figures
from experiments.figures.bench import throughput_figure
from experiments.figures.runs import comparison_figure, horizon_figure
from tests.experiments.finished_runs import write_horizon

ROOT = Path(__file__).parents[3]
ROWS = {"FARL": [{"step": s, "failure_episodes": s // 100, "eval_return": 1.0} for s in (0, 500)]}
DRAW = """
import os, sys
from experiments.figures.runs import comparison_figure
comparison_figure(__import__("pathlib").Path("figure.png"), {rows}, title="a title")
assert "matplotlib.pyplot" not in sys.modules
"""
BAD = b"text.usetex: True\nfont.size: 30\nbackend: qtagg\nno such key: 1\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "no such backend", "MPLCONFIGDIR": "/proc/farl"},
        {"MATPLOTLIBRC": "elsewhere/theirs"},
        {"MATPLOTLIBRC": "elsewhere"},
        {"HOME": "home", "XDG_CONFIG_HOME": ""},
    ],
    ids=str,
)
def test_what_the_user_has_set_changes_no_figure(tmp_path, variables):
    for name in ("matplotlibrc", "elsewhere/theirs", "elsewhere/matplotlibrc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(BAD + b"\xff\xfe")  # no text: it ends matplotlib's import
    folder = tmp_path / "home" / ".config" / "matplotlib"
    folder.mkdir(parents=True)
    (folder / "matplotlibrc").write_bytes(BAD)
    if "HOME" in variables:
        (tmp_path / "matplotlibrc").unlink()
        variables = variables | {"HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", DRAW.format(rows=ROWS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    clean = comparison_figure(tmp_path / "clean.png", ROWS, title="a title")
    assert (tmp_path / "figure.png").read_bytes() == clean.read_bytes()


def test_settings_made_in_this_process_do_not_count_and_stay(tmp_path):
    clean = comparison_figure(tmp_path / "clean.png", ROWS).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "text.usetex": True, "savefig.dpi": 10}):
        assert comparison_figure(tmp_path / "again.png", ROWS).read_bytes() == clean
        assert matplotlib.rcParams["font.size"] == 30 and matplotlib.rcParams["text.usetex"]


NASTY = "runs/$\\frac$/a_{/$x$[1]"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures, original = [], Figure.savefig
    remember = lambda self, *args, **named: figures.append(self) or original(self, *args, **named)
    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def test_names_are_printed_as_they_are(tmp_path, drawn):
    path = tmp_path / "$x_{" / "a.png"
    comparison_figure(path, {NASTY: ROWS["FARL"]}, title=f"{NASTY} \udcff", command=NASTY)
    rows = [{"method": NASTY, "failure_episodes": 1, "episodes": 1, "seed": 0, "online_steps": 1}]
    paper = {"failure_episodes": {}}
    figure = paper_figures.failures_figure({NASTY: {NASTY: rows}}, paper, NASTY)
    style.save(figure, tmp_path, "failures")
    shown = [text for one in drawn for text in one.findobj(matplotlib.text.Text)]
    ours = [text for text in shown if "a_{" in text.get_text()]
    assert path.stat().st_size > 1000 and len(ours) > 6
    assert not any(text.get_parse_math() for text in ours)
    titles = [one._suptitle.get_text() for one in drawn if one._suptitle]
    assert titles[0] == rf"{NASTY} \udcff"  # half a character has no picture


def test_formulas_of_ours_and_powers_stay_formulas(tmp_path, drawn):
    write_horizon(tmp_path)
    study = json.loads((tmp_path / "horizon.json").read_text()) | {"task": "$task_{"}
    horizon_figure(tmp_path / "horizon.png", study)
    row = {"task": "$t", "backend": "b$", "num_envs": 64, "steps_per_second": 1e4}
    rows = [row, row | {"num_envs": 256, "steps_per_second": 4e5}]
    throughput_figure(tmp_path / "bench.png", rows, None, "farl")
    horizon, bench = drawn
    math = {t.get_text() for t in horizon.findobj(matplotlib.text.Text) if t.get_parse_math()}
    assert {t.get_text() for t in horizon.axes[0].get_legend().get_texts()} <= math
    assert horizon.axes[5].get_title("left") in math
    assert horizon._suptitle.get_text() not in math
    ticks = bench.axes[0].yaxis.get_ticklabels()
    assert any(t.get_text().startswith("$") for t in ticks) and all(
        t.get_parse_math() for t in ticks
    )
    assert not any(t.get_parse_math() for t in bench.axes[0].get_legend().get_texts())


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")
    with drawing.own_defaults():
        figure = drawing.new_figure(1.0, 1.0)
        figure.savefig = None
        with pytest.raises(TypeError):
            drawing.save(figure, path)
    assert path.read_text() == "old"
