"""A trained run's policy as a file: on its own task, in another environment, around a robot."""

import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import load_run
from experiments.cli import main
from farl_jax import deploy
from farl_jax.methods import METHODS
from tests.deployed import Case, training_steps
from tests.farl_jax.test_decision import compare

ROOT = pathlib.Path(__file__).parents[3]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run as far as a policy needs it: FARL alone, without baseline, table and film."""
    out = tmp_path_factory.mktemp("real") / "run"
    begun = ["demos", "--task", "bounded_push", "--preset", "smoke", "--out", str(out)]
    for words in (begun, ["offline", str(out / "seed0")], ["online", str(out / "seed0")]):
        assert main(words) == 0
    return load_run(out / "seed0")


@pytest.fixture(scope="module")
def seen(trained):
    """An episode of the newest checkpoint, in closed loop with the training code."""
    step, learnt, gate = trained.newest()
    assert step > 0
    env, config, nets = trained.run.env(1), trained.settings.config, trained.run.networks()
    case = Case(METHODS["farl"], learnt, gate, trained.decide())
    return training_steps(case, env, config, nets, env.episode_limit)


@pytest.fixture(scope="module")
def policy_folder(trained, tmp_path_factory):
    pytest.importorskip("jax2onnx")
    out = tmp_path_factory.mktemp("policy") / "policy"
    assert main(["export", str(trained.path), "-o", str(out), "--formats", "jax", "onnx"]) == 0
    return out


@pytest.mark.parametrize("runtime", ["jax", "onnx"])
def test_a_whole_episode_with_recoveries(seen, policy_folder, runtime):
    acted = compare(deploy.load(policy_folder, runtime), seen)
    assert acted.any() and not acted.all()


ACT = """
import sys, numpy as np
from farl_jax.deploy import load
policy = load(sys.argv[1], runtime=sys.argv[2])
memory, actions = policy.start(), []
for obs in np.load(sys.argv[3]):
    action, memory, _ = policy.act(obs, memory)
    actions.append(action)
np.save(sys.argv[4], np.array(actions))
for name in ("mujoco", "metaworld", "flax", "optax", "orbax"):
    try:
        __import__(name)
    except ImportError:
        continue
    sys.exit(f"{name} is here")
"""


@pytest.mark.parametrize(
    ("runtime", "packages"), [("jax", ["jax", "flatbuffers"]), ("onnx", ["onnxruntime"])]
)
def test_another_environment_acts_alike(trained, policy_folder, tmp_path, runtime, packages):
    """A new venv with NumPy and one runtime, and of this project the package alone."""
    if runtime == "jax":
        packages = [f"jax=={jax.__version__}", *packages[1:]]
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    python = str(venv / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "numpy", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package index: {done.stderr.strip().splitlines()[-1]}")
    site = next((venv / "lib").glob("python*/site-packages"))
    shutil.copytree(ROOT / "farl_jax", site / "farl_jax")  # as `pip install --no-deps` would
    moved = shutil.copytree(policy_folder, tmp_path / "elsewhere")
    obs = np.random.default_rng(0).normal(size=(50, 39)).astype(np.float32)
    np.save(tmp_path / "obs.npy", obs)
    names = [str(moved), runtime, str(tmp_path / "obs.npy"), str(tmp_path / "actions.npy")]
    env = {name: v for name, v in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, "-c", ACT, *names], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    own = trained.safe_policy()
    memory, wanted = own.start(), []
    for row in obs:
        action, memory, _ = own.act(row, memory)
        wanted.append(action)
    np.testing.assert_allclose(np.load(tmp_path / "actions.npy"), wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--rate", "10"], 0, "recovery acted in"),
        (["--rate", "10", "--break-after", "1"], 1, "emergency stop: obs[4], object x, is nan"),
    ],
)
def test_the_robots_loop(policy_folder, words, code, said):
    command = [sys.executable, str(ROOT / "examples" / "robot_loop.py"), str(policy_folder)]
    done = subprocess.run(
        [*command, "--seconds", "4", *words],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr
    assert said in done.stdout + done.stderr
    if code == 0:  # 4 s of 10 Hz, on a machine that may be busy
        assert 10 <= int(done.stdout.split()[0]) <= 41
