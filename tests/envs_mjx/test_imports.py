"""What the package may import, and that importing it is silent."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

import envs_mjx

ROOT = pathlib.Path(__file__).parents[2]
FILES = sorted((ROOT / "envs_mjx").rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_import_of_the_learner_or_of_metaworlds_python(path: pathlib.Path) -> None:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module.split(".")[0])
    assert not modules & {"farl_jax", "experiments", "metaworld"}


def test_importing_and_making_is_silent_and_leaves_metaworld_alone() -> None:
    code = (
        "import sys, envs_mjx; envs_mjx.make('bounded_push', 'native');"
        "assert not {'metaworld', 'mujoco.mjx', 'farl_jax', 'experiments'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["bounded_push", "bounded_soccer", "obstructed_push"])
def test_a_task_is_imported_by_its_name_alone(name: str) -> None:
    module = importlib.import_module(f"envs_mjx.{name}")
    assert envs_mjx.TASKS[name] in vars(module).values()
