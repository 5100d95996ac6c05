"""The public API has types, and what the docs show fits them (`make types`)."""

import pathlib
import subprocess
import sys

import pytest

from tests.docs.pages import DOCS, python_blocks

ROOT = pathlib.Path(__file__).parents[1]
BEGINNING = "import numpy as np\n\nobs = np.zeros(39, np.float32)\n"


def checked(*words: str) -> subprocess.CompletedProcess[str]:
    """What pyrefly says, with this project's settings."""
    pyrefly = pytest.importorskip("pyrefly", reason="the extra dev is not installed")
    command = [sys.executable, "-m", pyrefly.__name__, "check", "--output-format", "min-text"]
    command += ["--python-interpreter-path", sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def checked_code(code: str, folder: pathlib.Path) -> str:
    """The faults of a user's code."""
    path = folder / "users.py"
    path.write_text(BEGINNING + code, "utf-8")
    said = checked("-c", str(ROOT / "pyproject.toml"), "--search-path", str(ROOT), str(path))
    return "\n".join(line for line in said.stdout.splitlines() if "ERROR" in line)


def test_the_public_api_is_clean():
    said = checked()
    assert said.returncode == 0 and "WARN" not in said.stdout, said.stdout


@pytest.mark.parametrize(
    "page", ["../README.md", "how-to/load.md", "reference/python.md", "tutorials/own-task.md"]
)
def test_a_users_code_fits(page, tmp_path):
    code = "\n".join(python_blocks(DOCS / page))
    assert checked_code(code, tmp_path) == ""


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("from experiments import load_run\nload_run('runs/x').rules", "rules"),
        ("from experiments import load_run\nload_run(3)", "bad-argument-type"),
        ("from farl_jax.deploy import load\nload('x', runtime='torch')", "torch"),
        ("import envs_mjx\nenvs_mjx.make('bounded_push').leap", "leap"),
    ],
)
def test_a_users_mistake_is_found(code, wrong, tmp_path):
    assert wrong in checked_code(code, tmp_path)
