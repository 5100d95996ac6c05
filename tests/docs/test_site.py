"""The site builds without a warning and without a network; it needs the extra `docs`."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_the_site_builds_strictly_and_its_links_lead_to_files(tmp_path):
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    start = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "Robots that keep learning" in start and "fonts.googleapis" not in start
    assert (tmp_path / "site" / "files" / "results" / "tasks.png").stat().st_size > 1000
