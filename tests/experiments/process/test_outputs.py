"""What cannot be written is one line before any work, and leaves nothing behind."""

import os

import pytest
from matplotlib.backend_bases import FigureCanvasBase

from experiments.bench import rollout, sheet, tasks, train
from experiments.cli import main
from experiments.errors import UserError
from experiments.process import outputs
from experiments.process.outputs import FIGURES, check_output, check_output_folder
from experiments.report import write
from experiments.sweep import cells
from tests.experiments.finished_runs import result, write_run

FILES = (
    ["bench", "--num-envs", "1", "--out"],
    ["bench", "--num-envs", "1", "--figure"],
    ["bench", "train", "--out"],
    ["bench", "train", "--figure"],
    ["tasks", "--task", "bounded_push", "--episodes", "1", "--out"],
    ["tasks", "--task", "bounded_push", "--sheet"],
)
FOLDERS = (
    ["report", "runs", "--out"],
    ["sweep", "--preset", "smoke", "--set", "safety.horizon=3", "--out"],
    ["reproduce", "--preset", "smoke", "--out"],
    ["run", "--preset", "smoke", "--out"],
    ["demos", "--preset", "smoke", "--out"],
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The current folder, with a file, a folder and finished runs; no work may begin there."""
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "seed0", result("bounded_push", "farl", 0, 1, 9.0))
    (tmp_path / "a_file").write_text("mine")
    (tmp_path / "a_folder.png").mkdir()
    (tmp_path / "sealed").mkdir(mode=0o500)
    os.mkfifo(tmp_path / "pipe.png")

    def work(*_, **__):
        raise AssertionError("work began")

    for place, name in ((rollout, "measure"), (tasks, "measure"), (train, "_worker")):
        monkeypatch.setattr(place, name, work)
    monkeypatch.setattr(sheet, "_row", work)
    monkeypatch.setattr(write, "_draw", work)
    monkeypatch.setattr(cells.Sweep, "run", work)
    return tmp_path


def refused(capsys, words):
    """The one line on stderr of a command that does nothing."""
    before = sorted(os.walk("."))
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("farl: ") and line.count("\n") == 1 and len(line) < 400
    assert sorted(os.walk(".")) == before
    return line


@pytest.mark.parametrize("words", FILES, ids=" ".join)
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("a_folder.png", "is a folder; name a file"),
        ("pipe.png", "is no regular file"),
        ("a_file/x.png", "cannot be written (Not a directory); choose another place"),
        ("a_file/deeper/x.png", "choose another place"),
        ("/proc/x/y.png", "cannot be written"),
        ("x" * 300 + ".png", "cannot be written (File name too long)"),
        ("x/" * 3000 + "y.png", "cannot be written (File name too long)"),
    ],
)
def test_a_file_that_cannot_be(capsys, words, path, said):
    assert said in refused(capsys, [*words, path])


@pytest.mark.parametrize("words", FILES, ids=" ".join)
@pytest.mark.parametrize("path", ["x.xyz", "x", "x.", ".png", "x.png.gz", "x.mp4"])
def test_a_picture_of_a_kind_that_nobody_draws(capsys, words, path):
    if words[-1] != "--out":
        assert f"{words[-1]} '{path}' must end in" in refused(capsys, [*words, path])


def test_a_sheet_is_png(capsys):
    assert "must end in .png" in refused(capsys, [*FILES[-1], "sheet.pdf"])


@pytest.mark.parametrize("words", FOLDERS, ids=" ".join)
@pytest.mark.parametrize("path", ["a_file", "a_file/x", "/proc/x/y", "x" * 300])
def test_a_folder_that_cannot_be(capsys, words, path):
    refused(capsys, [*words, path])


def test_a_name_that_is_no_path(capsys):
    for words in (*FILES, *FOLDERS[:3]):
        line = refused(capsys, [*words, "x\0.png"])
        assert "null" in line and "\0" not in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_sealed(capsys):
    for words in (*FILES, *FOLDERS):
        assert "Permission denied" in refused(capsys, [*words, "sealed/x.png"])


def test_matplotlib_draws_all_that_is_promised():
    assert set(FIGURES) <= {f".{name}" for name in FigureCanvasBase.get_supported_filetypes()}


def test_what_can_be_written_passes_and_its_folder_is_there(folder):
    check_output("--out", None)
    check_output("--out", folder / "a_file")
    check_output("--figure", folder / "new" / "deep" / "x.PNG", FIGURES)
    check_output_folder("--out", folder / "other" / "deep")
    assert (
        list((folder / "new" / "deep").iterdir()) == [] == list((folder / "other/deep").iterdir())
    )
    assert (folder / "a_file").read_text() == "mine"


def test_a_full_disk_is_said(folder, monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outputs.tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match="No space left on device"):
        check_output_folder("--out", folder / "new")


def test_a_bench_that_measured_nothing_says_so(capsys, folder, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    words = ["bench", "--backends", "none_such", "--num-envs", "1", "--figure", "x.png"]
    assert main(words) == 2
    line = capsys.readouterr().err
    assert line.startswith("farl: nothing could be measured: unknown physics backend 'none_such'")
    assert line.count("\n") == 1
    assert not (folder / "x.png").exists()
