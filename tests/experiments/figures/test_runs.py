"""The comparison figure: the right numbers on the right axes, and silence at import."""

import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments.figures import runs as plots
from experiments.figures import style
from experiments.figures.runs import comparison_figure


def rows(rate, seeds=(0,), evaluated=True):
    return [
        {
            "phase": "online",
            "step": step,
            "seed": seed,
            "failure_episodes": rate * step // 100 + seed,
            "eval_return": step / 1000 + seed if evaluated and step % 200 == 0 else None,
            "rollout_return": 0.25,
        }
        for seed in seeds
        for step in range(100, 1001, 100)
    ]


@pytest.fixture
def drawn(monkeypatch):
    """The figure that was saved last, to read its lines from."""
    figures = []
    original = Figure.savefig

    def remember(self, *args, **options):
        figures.append(self)
        return original(self, *args, **options)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def line(axis, label):
    (found,) = [line for line in axis.lines if line.get_label() == label]
    return found


def test_draws_both_methods_with_means_over_seeds(tmp_path, drawn):
    path = tmp_path / "new" / "figure.png"
    methods = {"uni_o4": rows(3, (0, 1, 2)), "farl": rows(1, (0, 1, 2))}
    assert (
        comparison_figure(path, methods, title="Bounded Push", command="farl x --seeds 3") == path
    )
    pixels = np.asarray(Image.open(path).convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 1000 and pixels.std() > 10
    failures, returns = drawn[-1].axes
    off, on = line(failures, "Uni-O4 (gate off)"), line(failures, "FARL (gate on)")
    np.testing.assert_allclose(off.get_xdata(), np.arange(0, 1001, 100))
    np.testing.assert_allclose(off.get_ydata(), [0.0, *(3.0 * np.arange(1, 11) + 1.0)])
    assert on.get_ydata()[-1] == 11.0
    assert off.get_color() != on.get_color() and off.get_linestyle() != on.get_linestyle()
    np.testing.assert_allclose(
        line(returns, "FARL (gate on)").get_xdata(), [200, 400, 600, 800, 1000]
    )
    assert len(failures.lines) == 2 * (3 + 1)
    assert "evaluated" in returns.get_title("left") and "steps" in returns.get_xlabel()
    assert "3 seeds" in drawn[-1]._supxlabel.get_text()
    assert "farl x --seeds 3" in drawn[-1]._supxlabel.get_text()


def test_rollout_returns_serve_only_where_nothing_was_evaluated(tmp_path, drawn):
    comparison_figure(tmp_path / "a.png", {"FARL": rows(1, evaluated=False)})
    returns = drawn[-1].axes[1]
    assert set(line(returns, "FARL").get_ydata()) == {0.25} and "in training" in returns.get_title(
        "left"
    )
    assert len(drawn[-1].axes[0].lines) == 1  # one seed has no thin line
    mixed = {"a": rows(1), "b": rows(1, evaluated=False)}
    comparison_figure(tmp_path / "a.png", mixed)
    assert [each.get_label() for each in drawn[-1].axes[1].lines] == ["a"]


def test_the_mean_covers_only_what_all_seeds_cover():
    runs = [(np.array([0.0, 10.0, 20.0]), np.array([0.0, 1.0, 2.0]))]
    runs.append((np.array([5.0, 15.0]), np.array([4.0, 5.0])))
    steps, values = style._mean(runs)
    np.testing.assert_allclose(steps, [5, 10, 15])
    np.testing.assert_allclose(values, [(0.5 + 4) / 2, (1 + 4.5) / 2, (1.5 + 5) / 2])


def test_smoothing_averages_backwards():
    _, values = plots._smooth((np.arange(4.0), np.array([1.0, 3.0, 5.0, 7.0])), 2)
    np.testing.assert_allclose(values, [1.0, 2.0, 4.0, 6.0])


def test_nothing_to_draw_is_an_error_that_names_the_method(tmp_path):
    with pytest.raises(ValueError, match="no method"):
        comparison_figure(tmp_path / "a.png", {})
    with pytest.raises(ValueError, match="FARL: no row has failure_episodes"):
        comparison_figure(tmp_path / "a.png", {"FARL": [{"step": 1, "eval_return": None}]})
    assert not list(tmp_path.iterdir())


def test_import_does_not_load_matplotlib():
    code = "import sys, experiments.figures.runs; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
