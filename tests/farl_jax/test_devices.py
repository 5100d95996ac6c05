"""Many devices equal one: pytest is started again with forced CPU devices, see on_devices.py."""

import os
import pathlib
import socket
import subprocess
import sys

import pytest

from experiments.cli import main
from farl_jax import devices

HERE = pathlib.Path(__file__).parent
OPTIONS = ["-o", "addopts=--import-mode=importlib", "-qx", "-p", "no:cacheprovider"]
INNER = [sys.executable, "-m", "pytest", *OPTIONS]


def start(folder, number, words, **variables):
    """The tests of on_devices.py in a process that has `number` CPU devices."""
    flags = f"--xla_force_host_platform_device_count={number}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | variables
    for name in ("PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER"):
        environment.pop(name, None)
    command = [*INNER, str(HERE / "on_devices.py"), f"--basetemp={folder}", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, env=environment, cwd=HERE.parents[1], **pipes)


def passed(*processes, seconds):
    """Each ends well; what the first that does not has printed is shown."""
    try:
        for process in processes:
            text, _ = process.communicate(timeout=seconds)
            assert process.returncode == 0, text[-5000:]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.timeout(280)
def test_eight_devices(tmp_path):
    passed(start(tmp_path / "0", 8, ["-m", "not slow"]), seconds=270)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_seeds_and_real_tasks_on_eight_devices(tmp_path):
    passed(start(tmp_path / "0", 8, ["-m", "slow"]), seconds=1400)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_of_four_devices(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    both = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    words = ["-m", "not slow"]
    passed(
        *(start(tmp_path / i, 4, words, **both, JAX_PROCESS_ID=i) for i in ("0", "1")), seconds=500
    )


@pytest.mark.parametrize(
    ("number", "seeds", "shape"), [(1, 4, (1, 1)), (8, 4, (4, 2)), (6, 4, (2, 3)), (8, 3, (1, 8))]
)
def test_seeds_are_shared_out_first(number, seeds, shape):
    assert devices.grid(number, seeds) == shape


def test_without_a_mesh_nothing_is_touched():
    tree = {"a": 1.0}
    with devices.use(1):
        assert not devices.active()
        for function in (devices.spread, devices.place, devices.gather):
            assert function(tree) is tree
        assert devices.settle(tree, ("a",)) is devices.place_state(tree, ("a",)) is tree


@pytest.mark.parametrize("words", [["--devices", "64"], ["--devices", "0"]])
def test_devices_that_are_not_there_are_refused_in_one_line(words, tmp_path, capsys):
    assert main(["run", "--preset", "smoke", "--out", str(tmp_path / "run"), *words]) == 2
    line = capsys.readouterr().err
    assert line.startswith("farl: --devices") and len(line.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_environments_that_do_not_come_out_even_are_refused(monkeypatch):
    monkeypatch.setattr(devices.jax, "device_count", lambda: 8)
    devices.check(8, 4, 10)
    with pytest.raises(devices.DeviceError, match="num_envs must be a multiple of 8"):
        devices.check(8, 1, 12)


def test_half_an_address_is_refused(monkeypatch):
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "127.0.0.1:1")
    with pytest.raises(devices.DeviceError, match="JAX_NUM_PROCESSES"):
        devices.join_processes()
