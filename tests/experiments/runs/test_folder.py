"""The run folder: never two runs or two processes in one, and one line for each refusal."""

import json
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from experiments.errors import UserError
from experiments.process import machine
from experiments.process.outputs import write_json
from experiments.runs import folder
from experiments.runs.folder import RunFolder
from experiments.runs.presets import RunSettings
from experiments.runs.run import Run

CONFIG = {"task": "bounded_push", "ppo": {"lr": 3e-4, "layers": (256, 256)}, "seed": 0}


def refused(match, call, *args, **options):
    with pytest.raises(UserError, match=match) as error:
        call(*args, **options)
    assert "\n" not in str(error.value)


def changed(**entries):
    return {**CONFIG, **entries}


def test_create_then_resume(tmp_path):
    path = tmp_path / "runs" / "a"
    with RunFolder.create(path, CONFIG) as run:
        assert run.path == path and (path / "run.lock").exists()
    assert sorted(p.name for p in path.iterdir()) == ["config.json", "env.json"]
    assert json.loads((path / "config.json").read_text())["ppo"]["layers"] == [256, 256]
    environment = json.loads((path / "env.json").read_text())
    assert environment["packages"]["jax"] == jax.__version__
    assert environment["device"]["kind"] == jax.devices()[0].device_kind
    assert environment["command"] == ["farl", *sys.argv[1:]] and environment["cpu_count"] >= 1
    (path / "metrics.jsonl").write_text("")
    refused("already has this run; add --resume", RunFolder.create, path, CONFIG)
    for _ in range(2):
        RunFolder.create(path, CONFIG, resume=True).close()
    assert len(json.loads((path / "env.json").read_text())["resumed"]) == 2
    assert json.loads((path / "env.json").read_text())["command"] == ["farl", *sys.argv[1:]]


def test_another_run_is_refused_and_the_difference_named(tmp_path):
    RunFolder.create(tmp_path, CONFIG).close()
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    for resume in (False, True):
        for config, match in (
            (
                changed(ppo={"lr": 0.1, "layers": [256, 256]}),
                r"ppo\.lr is 0\.0003 there and 0\.1 here",
            ),
            (changed(horizon=5), "horizon is <missing> there and 5 here"),
            (
                {k: v for k, v in CONFIG.items() if k != "seed"},
                "seed is 0 there and <missing> here",
            ),
        ):
            refused(match, RunFolder.create, tmp_path, config, resume=resume)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_foreign_folders_and_files_are_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    refused("not a run's folder, because it has thesis.tex", RunFolder.create, tmp_path, CONFIG)
    refused("not a run's folder", RunFolder.create, tmp_path, CONFIG, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    refused(
        "is a file; choose another --out|Not a directory|File exists",
        RunFolder.create,
        tmp_path / "thesis.tex",
        CONFIG,
    )
    refused("no run to resume", RunFolder.create, tmp_path / "new", CONFIG, resume=True)
    assert not (tmp_path / "new").exists()


def test_a_start_that_died_before_its_config_can_be_repeated(tmp_path):
    (tmp_path / "run.lock").write_text("")
    (tmp_path / "env.json").write_text("{")
    RunFolder.create(tmp_path, CONFIG).close()


def holder(path):
    code = f"""
import time
from experiments.runs.folder import RunFolder
run = RunFolder.create({str(path)!r}, {CONFIG!r})
print("held", flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_one_process_at_a_time_and_a_dead_one_holds_nothing(tmp_path):
    process = holder(tmp_path)
    try:
        match = f"in use by process {process.pid} on "
        refused(match, RunFolder.create, tmp_path, CONFIG, resume=True)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert (tmp_path / "run.lock").read_text().split()[0] == str(process.pid)  # stale
    with RunFolder.create(tmp_path, CONFIG, resume=True):
        assert (tmp_path / "run.lock").read_text().split()[0] == str(os.getpid())
        refused("in use by process", RunFolder.create, tmp_path, CONFIG, resume=True)
    RunFolder.create(tmp_path, CONFIG, resume=True).close()


def test_a_lock_of_another_host_is_respected(tmp_path):
    RunFolder.create(tmp_path, CONFIG).close()
    (tmp_path / "run.lock").write_text("7 elsewhere\n")
    refused(
        "process 7 on elsewhere; if that process has ended, delete",
        RunFolder.create,
        tmp_path,
        CONFIG,
        resume=True,
    )
    assert (tmp_path / "run.lock").read_text() == "7 elsewhere\n"


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"x": [1, None]})
    assert json.loads(path.read_text()) == {"x": [1, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": float("nan")})

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder.os, "fsync", full)
    refused("a.json: No space left on device", write_json, path, {"x": 2})
    assert json.loads(path.read_text()) == {"x": [1, None]} and len(list(tmp_path.iterdir())) == 1
    refused("No space left", RunFolder.create, tmp_path / "run", CONFIG)
    monkeypatch.undo()
    RunFolder.create(tmp_path / "run", CONFIG).close()


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    refused(
        "No such file or directory|not permitted|denied|Read-only",
        RunFolder.create,
        "/proc/farl/run",
        CONFIG,
    )

    def read_only(path, *_):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(folder.os, "open", read_only)
    refused("Read-only file system; choose another place", RunFolder.create, tmp_path, CONFIG)


@pytest.fixture
def jax_settings():
    names = (
        "jax_default_matmul_precision",
        "jax_compilation_cache_dir",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_prepare_jax(tmp_path, monkeypatch, jax_settings):
    monkeypatch.setenv("FARL_CACHE_DIR", str(tmp_path / "cache"))
    machine.prepare_jax()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []
    text = jax.jit(jnp.matmul).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
    assert "HIGHEST" in text
    (tmp_path / "file").write_text("")
    jax.config.update("jax_compilation_cache_dir", None)
    with pytest.warns(UserWarning, match="no compile cache"):
        machine.prepare_jax(tmp_path / "file" / "below")
    assert jax.config.jax_compilation_cache_dir is None


def test_peak_memory_is_in_gigabytes():
    ballast = bytearray(os.urandom(1024)) * 300_000  # 0.3 GB, touched
    assert 0.3 < machine.peak_memory_gb() < 20.0
    del ballast


def test_git_state_is_of_this_checkout_only(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True)
    state = machine._git_state(tmp_path)
    assert len(state["commit"]) == 40 and state["dirty"] is False
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_text("")
    assert machine._git_state(tmp_path)["dirty"] is True
    assert machine._git_state(tmp_path / "new") is None


def test_a_process_builds_the_environment_of_its_runs_once(tmp_path):
    push, wall = RunSettings(), RunSettings(task="fragile_push_wall")
    run = lambda settings: Run(tmp_path, settings, False, Console(quiet=True))
    assert run(push).env(64).env is run(push).env(1).env
    assert run(wall).env(1).env is not run(push).env(1).env
