"""`--track`: a viewer that cannot get the metrics is refused before anything is made."""

import os
import subprocess
import sys

import pytest

from experiments.cli import main

KEYS = ("WANDB_API_KEY", "WANDB_MODE", "HF_TOKEN")


@pytest.mark.parametrize("command", ["run", "offline", "online", "sweep"])
@pytest.mark.parametrize("viewer", ["wandb", "trackio"])
def test_a_viewer_that_is_not_installed(monkeypatch, tmp_path, capsys, command, viewer):
    monkeypatch.setitem(sys.modules, viewer, None)
    option = ["--out"] if command in ("run", "sweep") else []
    assert main([command, *option, str(tmp_path / "x"), "--track", viewer]) == 2
    said = capsys.readouterr().err
    assert said == (f"farl: --track {viewer} needs {viewer}: pip install 'farl-jax[{viewer}]'\n")
    assert list(tmp_path.iterdir()) == []


def test_a_viewer_that_is_none(tmp_path, capsys):
    assert main(["run", "--out", str(tmp_path / "x"), "--track", "mlflow"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "tensorboard" in said and "trackio" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("viewer", "set_to", "said"),
    [
        ("wandb", {}, "--track wandb has no key: run wandb login, set WANDB_API_KEY, or set"),
        ("trackio", {"TRACKIO_SPACE_ID": "me/runs"}, "--track trackio has no key for the Space"),
    ],
)
def test_no_key_is_one_line_before_any_training(tmp_path, viewer, set_to, said):
    pytest.importorskip(viewer)
    home = {"HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    kept = {name: value for name, value in os.environ.items() if name not in KEYS}
    words = ["run", "--preset", "smoke", "--out", str(tmp_path / "x"), "--track", viewer]
    script = "import sys; from experiments.cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", script, *words],
        env=kept | home | set_to,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"farl: {said}") and done.stderr.count("\n") == 1, done.stderr
    assert not (tmp_path / "x").exists()
