"""Files appear whole and never through a link; a run's folder is data and reaches nowhere else."""

import os
import socket
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.errors import UserError
from experiments.figures import style
from experiments.figures.drawing import new_figure
from experiments.process.outputs import write_json
from experiments.report.sweeps import SWEEP
from experiments.runs.folder import RunFolder
from farl_jax.storage import files
from farl_jax.storage.metrics import MetricsWriter, read_metrics
from tests.experiments.finished_runs import result, write, write_film, write_horizon, write_run

TABLE = {"failing_steps": 9, "wall_seconds": 3.0}
SECRET = "a stranger's secret"


@pytest.fixture
def secret(tmp_path):
    """A file elsewhere that nobody may read or write."""
    return write(tmp_path / "elsewhere" / "secret.txt", SECRET)


@pytest.fixture
def run(tmp_path):
    """A finished run of two methods, and its film."""
    seed = tmp_path / "runs" / "seed0"
    for method in ("uni_o4", "farl"):
        folder = write_run(seed, result("bounded_push", method, 0, 5, 50.0, **TABLE))
    write_film(folder)
    return seed


def said(capsys, *words):
    """The one line of a refused command."""
    assert main(list(words)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_a_file_is_replaced_whole_and_a_link_is_not_followed(tmp_path, secret):
    target = tmp_path / "note.json"
    target.symlink_to(secret)
    with files.replacing(target) as temporary:
        assert temporary.is_absolute() and temporary.suffix == ".json"
        first = temporary.name
        temporary.write_text("new")
        assert target.read_text() == SECRET
    assert target.read_text() == "new" and not target.is_symlink()
    with pytest.raises(ZeroDivisionError), files.replacing(target) as temporary:
        temporary.write_text("half")
        assert temporary.name != first
        raise ZeroDivisionError
    assert target.read_text() == "new" and secret.read_text() == SECRET
    assert {path.name for path in tmp_path.iterdir()} == {"note.json", "elsewhere"}
    assert target.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with files.replacing(tmp_path / "made", folder=True) as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "made").exists()
    with pytest.raises(OSError), files.replacing(tmp_path / "no", folder=True) as temporary:
        (temporary / "a").write_text("1")
        raise OSError("full")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_the_disk_refuses_is_named_by_its_own_name(tmp_path):
    with pytest.raises(UserError, match=r"note\.json") as error:
        write_json(tmp_path / "absent" / "note.json", {})
    assert files.LEFTOVER not in str(error.value)
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError) as refused, files.replacing(tmp_path / "taken"):
        pass
    assert str(refused.value).endswith(f"{str(tmp_path / 'taken')!r}")  # and no second name


def test_leftovers_of_killed_processes_go_when_the_run_is_opened_again(tmp_path):
    RunFolder.create(tmp_path, {}).close()
    (tmp_path / "farl").mkdir()
    left = [tmp_path / f"{files.LEFTOVER}1.json", tmp_path / "farl" / f"{files.LEFTOVER}2"]
    left[0].write_text("half")
    left[1].mkdir()
    (left[1] / "a").write_text("half")
    RunFolder.create(tmp_path, {}, resume=True).close()
    assert not any(path.exists() for path in left)


def test_metrics_go_on_in_a_file_of_their_own(tmp_path):
    other = tmp_path / "other.jsonl"
    with MetricsWriter(tmp_path / "a") as writer:
        writer.write(1, {"x": 1.0}, "online")
    (tmp_path / "a" / "metrics.jsonl").rename(other)
    (tmp_path / "a" / "metrics.jsonl").symlink_to(other)
    with MetricsWriter(tmp_path / "a") as writer:
        writer.write(2, {"x": 2.0}, "online")
    assert [row["step"] for row in read_metrics(tmp_path / "a" / "metrics.jsonl")] == [1, 2]
    assert len(read_metrics(other)) == 1


def test_the_lock_is_never_taken_through_a_link(tmp_path, secret):
    """Before there is a config.json the folder is not looked through."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.lock").symlink_to(secret)
    with pytest.raises(UserError, match=r"run\.lock"):
        RunFolder.create(tmp_path / "new", {})
    assert secret.read_text() == SECRET


NAMES = (
    *("run.lock", "env.json", "config.json", "comparison.png", "comparison.json"),
    *(".comparison.json.tmp", ".env.json.tmp", "farl/result.json", "farl/metrics.jsonl"),
    *("farl/film.mp4", "farl/deep/er/x", "metrics.jsonl", "replaced"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_link_that_leads_out_is_refused_by_name(run, secret, capsys, name):
    link = run / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(secret if name != "replaced" else secret.parent)
    assert str(link) in said(capsys, "evaluate", str(run))
    assert str(link) in said(capsys, "online", str(run), "--method", "uni_o4", "--overwrite")
    assert secret.read_text() == SECRET and len(list(secret.parent.iterdir())) == 1
    assert link.is_symlink()


def spoiled(kind, run, secret):
    """An entry of the run's folder that is no data."""
    place = run / "farl" / "x"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        own = socket.socket(socket.AF_UNIX)
        os.chdir(place.parent)  # its path may be longer than a socket's
        own.bind(place.name)
    elif kind == "loop":
        place.symlink_to(place.name)
    elif kind == "relative":
        place.symlink_to(os.path.relpath(secret, place.parent))
    elif kind == "dangling":
        place.symlink_to(secret.parent / "nothing")
    else:
        place.symlink_to(secret.parent)
    return place


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["fifo", "socket", "loop", "relative", "dangling", "folder"])
def test_whatever_is_no_data_is_refused_and_left_out_of_a_report(
    run, secret, capsys, kind, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    place = spoiled(kind, run, secret)
    assert str(place) in said(capsys, "evaluate", str(run))
    good = result("bounded_push", "uni_o4", 1, 5, 50.0, **TABLE)
    write_run(run.parent / "seed1", good)
    assert main(["report", str(run.parent), "-o", str(tmp_path / "report")]) == 0
    told = capsys.readouterr().err
    assert f"{run / 'farl'}: x:" in told
    assert "seed0" not in (tmp_path / "report" / "rows.jsonl").read_text()


def test_a_fifo_in_a_files_place_keeps_nobody_waiting(run, capsys):
    (run / "farl" / "result.json").unlink()
    os.mkfifo(run / "farl" / "result.json")
    assert "result.json" in said(capsys, "evaluate", str(run))
    assert "result.json" in said(capsys, "report", str(run), "-o", str(run.parent / "report"))


def test_links_inside_and_a_link_to_the_run_are_good(run, tmp_path, capsys):
    (run / "farl" / "result.json").rename(run / "kept.json")
    (run / "farl" / "result.json").symlink_to(Path("..") / "kept.json")
    (run / "again").symlink_to("farl")
    (tmp_path / "way").symlink_to(run)
    assert main(["evaluate", str(tmp_path / "way")]) == 0
    assert (run / "comparison.png").is_file()


def test_a_report_reads_no_link_that_leads_out(run, secret, tmp_path, capsys):
    film = run / "farl" / "film.mp4"
    film.symlink_to(secret)
    outside = write(tmp_path / "outside" / "horizon.json", "{}")
    write_horizon(tmp_path / "outside")
    (run / "farl" / "horizon.json").symlink_to(outside)
    sweep = tmp_path / "runs" / "sweep" / SWEEP
    sweep.parent.mkdir()
    sweep.symlink_to(write(tmp_path / "outside" / "s.jsonl", result("x", "farl", 0, 1, 1.0)))
    line = said(capsys, "report", str(tmp_path / "runs"), "-o", str(tmp_path / "report"))
    assert "film.mp4" in line and "link to outside" in line


def test_figures_and_films_replace_links(run, secret, tmp_path):
    for name in ("a.png", "a.pdf"):
        (tmp_path / name).symlink_to(secret)
    style.save(new_figure(1.0, 1.0), tmp_path, "a")
    assert secret.read_text() == SECRET and not (tmp_path / "a.png").is_symlink()


NASTY = ("lab [1]", "a*b?", "back\\slash", "$HOME", "{x}", "~", "--ü", "new\nline", "[a-z]", "gs:")


def test_a_run_is_evaluated_whatever_its_folder_is_called(run, capsys):
    for name in NASTY:
        other = run.rename(run.with_name(name))
        assert main(["evaluate", str(other)]) == 0
        assert (other / "comparison.png").stat().st_size > 1000
        (other / "comparison.png").unlink()
        run = other


def test_a_folder_deeper_than_pythons_recursion_is_walked(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(run / "farl")
    depth = 1100
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    try:
        Path(f"{files.LEFTOVER}1").touch()
        assert main(["evaluate", str(run)]) == 0 and not list(Path().iterdir())
        assert main(["report", str(run), "-o", str(tmp_path / "report")]) == 0
        assert "d/d/d" not in capsys.readouterr().err
    finally:  # pytest's own cleaning has that limit, too
        Path(f"{files.LEFTOVER}1").unlink(missing_ok=True)
        for _ in range(depth):
            os.chdir("..")
            os.rmdir("d")
