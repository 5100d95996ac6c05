"""`farl doctor` says what works here; its table of extras is that of pyproject.toml."""

import pathlib
import tomllib

import jax

from envs_mjx import BACKENDS
from experiments import doctor
from experiments.cli import main

ROOT = pathlib.Path(__file__).parents[2]


def test_every_extra_has_a_purpose():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert doctor.EXTRAS.keys() == project["optional-dependencies"].keys() - {"dev"}


def test_it_names_what_works_and_what_to_install(capsys):
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert f"jaxlib           {jax.lib.__version__}" in said
    lines = {line[:17].strip(): line[17:] for line in said.splitlines()}
    assert lines["backend native"].startswith("ok      compiled and stepped in")
    assert (
        "default here" in lines[f"backend {'native' if jax.default_backend() == 'cpu' else 'mjx'}"]
    )
    for backend in BACKENDS:
        assert f"backend {backend}" in lines
    for extra in doctor.EXTRAS:
        line = lines[f"extra {extra}"]
        assert line.startswith("ok ") or f"pip install 'farl-jax[{extra}]'" in line
    assert "training works here" in said


def test_what_training_needs_is_broken_and_what_it_does_not_need_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "TASK", "no_such_task")
    found = {f.name: f for f in (doctor._backend(name, step=False) for name in BACKENDS)}
    default = "native" if jax.default_backend() == "cpu" else "mjx"
    states = {name: found[f"backend {name}"].state for name in BACKENDS}
    assert states == {name: "broken" if name == default else "missing" for name in BACKENDS}
    assert "no_such_task" in found["backend native"].text
