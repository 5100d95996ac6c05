"""Work before decoration: a film or figure that fails is one warning, and nothing else is lost."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from envs_mjx import film, render
from envs_mjx.errors import RenderError
from experiments.bench import rollout
from experiments.bench import train as bench_train
from experiments.cli import main
from experiments.figures import drawing
from experiments.figures.decoration import decoration
from experiments.phases import online
from experiments.process import signals
from experiments.report import figures
from tests.experiments.finished_runs import result, write_film, write_horizon, write_run


def finish(folder, seed=0, methods=("uni_o4", "farl")):
    """A finished run, and its rows."""
    extra = {"failing_steps": 3, "wall_seconds": 1.0, "diverged": 0}
    rows = [result("bounded_push", method, seed, 5, 50.0, **extra) for method in methods]
    for row in rows:
        write_run(folder, row)
    return rows


def warnings(capsys):
    """(what was printed, lines of stderr)."""
    said = capsys.readouterr()
    return said.out, said.err.splitlines()


@pytest.fixture
def no_gl(monkeypatch):
    """A machine without any OpenGL."""
    monkeypatch.setattr(render, "_draws", lambda *_: False)
    render.find_gl.cache_clear()
    yield
    render.find_gl.cache_clear()


@pytest.fixture
def no_figure(monkeypatch):
    """Nothing can be drawn."""

    def fail(*_, **__):
        raise RuntimeError("no fonts\nat all")

    monkeypatch.setattr(drawing, "save", fail)
    for module in ("runs", "bench", "style"):
        monkeypatch.setattr(f"experiments.figures.{module}.save", fail)


def test_an_error_becomes_one_line_and_a_signal_does_not(capsys, monkeypatch):
    for error, said in (
        (RenderError("cannot draw: no GL"), "no film: cannot draw: no GL; later"),
        (KeyError("a\nb"), r"no film: KeyError: 'a\nb'; later"),
        (ValueError("[bold]\n:smile:"), "no film: ValueError: [bold] :smile:; later"),
        (AssertionError(), "no film: AssertionError; later"),
    ):
        with decoration("film", "later"):
            raise error
        assert warnings(capsys)[1] == [f"farl: warning: {said}"]
    with pytest.raises(KeyboardInterrupt), decoration("film", "later"):
        raise KeyboardInterrupt
    monkeypatch.setattr(signals, "requested", lambda: True)
    with pytest.raises(ValueError), decoration("film", "later"):
        raise ValueError("Stopped")


def test_all_seeds_train_and_the_table_is_there_before_the_film(
    tmp_path, monkeypatch, capsys, no_gl
):
    def train(runs, *_, **__):
        capsys.readouterr()
        return [finish(run.path, run.settings.seed) for run in runs]

    monkeypatch.setattr(online, "all_phases", train)
    words = ["run", "--preset", "smoke", "--seeds", "2", "--out", str(tmp_path / "r")]
    assert main(words) == 0
    said, lines = warnings(capsys)
    assert "mean over seeds" in said and "FARL" in said and "peak memory" in said
    assert (tmp_path / "r" / "comparison.png").stat().st_size > 1000
    assert len(json.loads((tmp_path / "r/comparison.json").read_text())["methods"]["farl"]) == 2
    (line,) = lines
    assert line.startswith("farl: warning: no film: cannot draw: neither EGL nor OSMesa")
    assert line.endswith(f"farl render {tmp_path / 'r' / 'seed0'} makes it later")
    assert not list((tmp_path / "r").rglob("run.lock"))


def test_alone_they_are_the_work(tmp_path, capsys, no_gl):
    finish(tmp_path / "seed0")
    for words in (
        ["render", str(tmp_path / "seed0")],
        ["tasks", "--sheet", str(tmp_path / "a.png")],
    ):
        assert main(words) == 2
        (line,) = warnings(capsys)[1]
        assert line.startswith("farl: cannot draw: neither EGL nor OSMesa works here; install one")


def test_a_table_without_its_figure(tmp_path, capsys, no_figure):
    finish(tmp_path / "seed0")
    assert main(["evaluate", str(tmp_path / "seed0")]) == 0
    said, (line,) = warnings(capsys)
    assert "FARL (gate on)" in said and (tmp_path / "seed0" / "comparison.json").is_file()
    assert "…" not in said  # nothing is cut
    assert line.startswith("farl: warning: no figure: RuntimeError: no fonts at all; ")


def test_a_report_without_some_of_its_pictures(tmp_path, capsys, monkeypatch):
    finish(tmp_path / "runs" / "seed0")
    write_film(tmp_path / "runs/seed0/farl")
    write_horizon(tmp_path / "runs/seed0/farl")

    def fail(*_):
        raise RuntimeError("no such font")

    monkeypatch.setattr(figures, "pareto_figure", fail)
    monkeypatch.setattr("experiments.report.write.horizon_figure", fail)
    assert main(["report", str(tmp_path / "runs"), "--out", str(tmp_path / "page")]) == 0
    _, lines = warnings(capsys)
    assert [line.split(";")[0] for line in lines] == [
        "farl: warning: no figure pareto: RuntimeError: no such font",
        "farl: warning: no figure horizon_1_bounded_push: RuntimeError: no such font",
    ]
    page = (tmp_path / "page" / "index.html").read_text()
    assert 'alt="failures"' in page and 'alt="pareto"' not in page


def test_rows_that_were_measured_are_kept_without_their_figure(
    tmp_path, capsys, monkeypatch, no_figure
):
    row = {"task": "bounded_push", "backend": "native", "num_envs": 64, "bytes_per_env": 1}
    row |= dict.fromkeys(("steps_per_second", "compile_seconds", "reset_microseconds"), 1.0)
    monkeypatch.setattr(rollout, "measure", lambda *_: row)
    words = ["--num-envs", "64", "--backends", "native", "--out", str(tmp_path / "a.json")]
    words += ["--figure", str(tmp_path / "a.png")]
    assert main(["bench", *words]) == 0
    assert "no figure" in warnings(capsys)[1][0]
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == [row]

    shares = dict.fromkeys(bench_train.PARTS, 0.1)
    row = row | {"shares": shares, "cold": None, "warm": {"compile_seconds": 1.0}}
    row |= {"device_memory_gb": 1.0, "gate_share_of_matmul": 0.5}
    monkeypatch.setattr(bench_train, "_in_own_processes", lambda *_: row)
    assert main(["bench", "train", *words]) == 0
    assert "no figure" in warnings(capsys)[1][0]
    assert json.loads((tmp_path / "a.json").read_text())["rows"] == [row]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/nonexistent", "cannot run: No such file"),
        ("/etc/passwd", "cannot run: Permission denied"),
        ("/bin/false", "failed: it printed nothing"),
        ("/bin/true", "failed: it printed nothing"),
        ("/bin/ls", "failed: "),
    ],
)
def test_an_ffmpeg_that_does_not_work_is_named(tmp_path, monkeypatch, program, said):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    with pytest.raises(RenderError, match=f"ffmpeg {said}.*IMAGEIO_FFMPEG_EXE") as error:
        film.write_video(tmp_path / "film.mp4", np.zeros((2, 16, 16, 3), np.uint8))
    assert program in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_users_wish_is_tried_first_and_nothing_else_of_theirs_is_in_the_way(monkeypatch):
    tried = []

    def run(command, *, env, **_):
        tried.append([env.get(k) for k in ("MUJOCO_GL", "PYOPENGL_PLATFORM", render._DEVICE)])
        works = env["MUJOCO_GL"] == "egl" and render._DEVICE not in env
        return SimpleNamespace(returncode=0 if works else 1, stdout=b"drawn")

    monkeypatch.setattr(render.subprocess, "run", run)
    monkeypatch.setenv("MUJOCO_GL", " GLFW")
    monkeypatch.setenv("PYOPENGL_PLATFORM", "rubbish")
    monkeypatch.setenv(render._DEVICE, "99")
    assert render.find_gl.__wrapped__() == "egl"
    assert tried == [
        ["glfw", None, "99"],
        ["egl", "egl", "99"],
        ["osmesa", "osmesa", "99"],
        ["glfw", None, None],
        ["egl", "egl", None],
    ]
    assert os.environ["MUJOCO_GL"] == os.environ["PYOPENGL_PLATFORM"] == "egl"
    assert render._DEVICE not in os.environ
