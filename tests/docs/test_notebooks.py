"""The notebooks are small, keep our rules of prose, and run from top to bottom."""

import json
import os
import pathlib
import shutil
import sys

import pytest

from tests.docs import words

FOLDER = pathlib.Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
INSTALL = "if importlib.util.find_spec("


def cells(path: pathlib.Path, kind: str) -> list[str]:
    """The sources of a notebook's cells of a kind."""
    found = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def test_there_are_three():
    assert [path.stem[:1] for path in NOTEBOOKS] == ["1", "2", "3"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_has_no_output(path):
    assert path.stat().st_size < 20_000
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        assert cell.get("outputs", []) == [] and cell.get("execution_count") is None
    first, *others = cells(path, "code")
    assert INSTALL in first and not any("pip install" in code for code in others)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_words_keep_the_rules(path):
    text = "\n\n".join(cells(path, "markdown"))
    assert [str(fault) for fault in words.faults(text)] == []
    assert words.mean_length(text) < words.MEAN


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_they_run_from_top_to_bottom(tmp_path, monkeypatch):
    """In one folder and in order, as a reader would. The second finds the first one's run."""
    import nbformat
    from nbclient import NotebookClient

    farl = pathlib.Path(sys.executable).with_name("farl")
    assert farl.exists(), "install the package, as `make test` does"
    monkeypatch.setenv("PATH", f"{farl.parent}{os.pathsep}{os.environ['PATH']}")
    for path in NOTEBOOKS:
        book = nbformat.read(path, as_version=4)
        where = {"metadata": {"path": str(tmp_path)}}
        client = NotebookClient(book, timeout=600, startup_timeout=300, resources=where)
        client.execute()
        if kept := os.environ.get("FARL_NOTEBOOKS"):  # to look at the figures
            shutil.copytree(tmp_path, kept, dirs_exist_ok=True)
            nbformat.write(book, pathlib.Path(kept, path.name))
        shown = [output for cell in book.cells for output in cell.get("outputs", [])]
        figures = [out for out in shown if "image/png" in out.get("data", {})]
        assert figures, path
    assert (tmp_path / "episode.gif").stat().st_size > 1000
    for folder in ("bounded_push", "wet_spot"):
        for method in ("uni_o4", "farl"):
            assert (tmp_path / "runs" / folder / "smoke/seed0" / method / "result.json").is_file()
