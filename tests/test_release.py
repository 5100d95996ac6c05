"""Wheel and sdist are whole: installed into a fresh environment, they work from another folder."""

import pathlib
import subprocess
import tarfile
import tomllib
import venv
import zipfile

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PACKAGES = ("envs_gym", "envs_mjx", "experiments", "farl_jax")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(*words: object, cwd: pathlib.Path) -> str:
    """A command's stdout. It must end with exit code 0."""
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """(Python of a fresh environment with hatchling, folder of the built wheel and sdist)."""
    folder = tmp_path_factory.mktemp("release")
    venv.create(folder / "venv", with_pip=True)
    python, dist = folder / "venv" / "bin" / "python", folder / "dist"
    run(python, "-m", "pip", "install", "--quiet", "hatchling", cwd=ROOT)
    run(python, "-m", "hatchling", "build", "-d", dist, cwd=ROOT)
    return python, dist


def test_the_wheel_has_all_data_and_nothing_else(fresh):
    (wheel,) = fresh[1].glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} - {*PACKAGES} == {f"farl_jax-{VERSION}.dist-info"}
    for data in ("figures/paper_numbers.json", "report/report.css", "stored/main.jsonl"):
        assert f"experiments/{data}" in names
    assert all(f"{package}/py.typed" in names for package in PACKAGES)


def test_the_sdist_has_what_a_checkout_needs(fresh):
    (sdist,) = fresh[1].glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    assert {"README.md", "Makefile", "requirements.lock", "tests/toy.py"} <= names
    assert {"results/main.jsonl", "docs/index.md", "examples/gantry.py"} <= names


def test_an_installed_wheel_works_from_another_folder(fresh, tmp_path):
    """The dependencies are those of this environment. The package is not."""
    python, dist = fresh
    (wheel,) = dist.glob("*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", wheel, cwd=tmp_path)
    site = next((python.parents[1] / "lib").glob("python3*/site-packages"))
    (site / "zz_dependencies.pth").write_text(str(pathlib.Path(jax.__file__).parents[1]) + "\n")
    where = run(python, "-c", "import experiments; print(experiments.__file__)", cwd=tmp_path)
    assert where.startswith(str(site))
    farl = python.with_name("farl")
    said = run(farl, "reproduce", "--stored", cwd=tmp_path)
    assert "copied those of this package" in said and "mean over 4 task(s)" in said
    assert (tmp_path / "results" / "failures.png").stat().st_size > 1000
    said = run(farl, "run", "--preset", "smoke", "--out", "smoke", cwd=tmp_path)
    assert "failure episodes:" in said
    assert (tmp_path / "smoke" / "seed0" / "farl" / "result.json").is_file()
