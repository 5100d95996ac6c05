"""Loading a policy and acting with it: what is damaged, foreign or not finite is one line."""

import hashlib
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from farl_jax import deploy
from farl_jax.deploy import DeployError
from tests.deployed import resign, write_toy
from tests.farl_jax.data.test_dataset import Bomb


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deploy") / "policy"
    write_toy(folder)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to be spoiled."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in written.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def refused(call, *said):
    with pytest.raises(DeployError) as error:
        call()
    line = str(error.value)
    assert "\n" not in line and all(part in line for part in said), line


def test_no_policy_folder(tmp_path):
    refused(lambda: deploy.load(tmp_path), "no exported policy", "farl export RUN -o FOLDER")
    refused(lambda: deploy.load(tmp_path / "missing"), "check the path")
    (tmp_path / "contract.json").write_text("{}")
    refused(lambda: deploy.load(tmp_path), "format null, this version reads 1")
    (tmp_path / "contract.json").write_text("not json")
    refused(lambda: deploy.load(tmp_path), "damaged", "not JSON")


def test_a_damaged_program(folder):
    path = folder / "policy.stablehlo"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(lambda: deploy.load(folder), str(path), "damaged", "copy the folder again")
    path.write_bytes(data[:100])
    refused(lambda: deploy.load(folder), "damaged")
    path.unlink()
    refused(lambda: deploy.load(folder), "no such file")


def test_a_changed_contract(folder):
    path = folder / "contract.json"
    good = path.read_text()
    path.write_text(good.replace('"eps_safe": ', '"eps_safe": 1'))
    refused(lambda: deploy.load(folder), "changed since it was written")
    contract = json.loads(good)
    del contract["memory"]
    path.write_text(json.dumps(contract))
    refused(lambda: deploy.load(folder), "damaged", "'memory' is missing")


def test_another_version(folder):
    resign(folder, format=2)
    refused(lambda: deploy.load(folder), "format 2, this version reads 1")


def test_loading_runs_no_code(folder, tmp_path):
    """Each file in turn is a pickle that would make a folder, signed where it is a program."""
    target = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(target))
    file = {"bytes": len(bomb), "sha256": hashlib.sha256(bomb).hexdigest()}
    (folder / "policy.stablehlo").write_bytes(bomb)
    resign(folder, files={"policy.stablehlo": file})
    refused(lambda: deploy.load(folder), "cannot use it")
    (folder / "contract.json").write_bytes(bomb)
    refused(lambda: deploy.load(folder), "damaged")
    assert not target.exists()


def test_a_program_of_another_version_says_which_wrote_it(folder):
    """Bytes that JAX cannot read, though they are those that the contract names."""
    data = b"\x10\x00\x00\x00" + bytes(200)
    (folder / "policy.stablehlo").write_bytes(data)
    file = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    versions = json.loads((folder / "contract.json").read_text())["versions"] | {"jax": "9.9.9"}
    resign(folder, files={"policy.stablehlo": file}, versions=versions)
    refused(lambda: deploy.load(folder), "cannot use it", "written by JAX 9.9.9")


def test_a_program_that_does_not_fit_its_contract(folder):
    contract = json.loads((folder / "contract.json").read_text())
    resign(folder, action=contract["action"] * 2)
    refused(lambda: deploy.load(folder), "does not fit its contract.json")
    resign(folder, action=contract["action"], observation=contract["observation"] * 2)
    refused(lambda: deploy.load(folder), "does not fit its contract.json")


def test_what_can_be_asked_for(written):
    refused(lambda: deploy.load(written, runtime="torch"), "jax or onnx", "torch")
    refused(lambda: deploy.load(written, runtime="onnx"), "without policy.onnx")
    sha = json.loads((written / "contract.json").read_text())["sha256"]
    assert deploy.load(written, sha256=sha).contract["sha256"] == sha
    refused(lambda: deploy.load(written, sha256="0" * 64), "another policy", sha)


def test_bad_observations_and_memories(written):
    policy = deploy.load(written)
    memory = policy.start()
    act = lambda obs, memory=memory: lambda: policy.act(obs, memory)
    refused(act(np.zeros(3)), "shape (2,)", "got shape (3,)")
    refused(act(np.zeros((1, 2))), "got shape (1, 2)")
    refused(act([0.0, np.nan]), "obs[1], observation 1, is nan", "stop the robot")
    refused(act([np.inf, 0.0]), "obs[0]", "is inf")
    refused(act("fast"), "must be numbers")
    refused(act([0.0, 0.0], {}), "memory must be what start() or act() returned")
    refused(act([0.0, 0.0], None), "memory must be")
    refused(act([3e38, 3e38]), "not finite")
    policy.act([0, 1], memory)  # after all that, it still acts


def test_acting_has_no_state_of_its_own(written):
    policy = deploy.load(written)
    obs = np.array([1.1, 0.0])
    start = policy.start()
    first = policy.act(obs, start)
    for _ in range(3):
        policy.act(obs, first[1])
    again = policy.act(obs, policy.start())
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1:] == again[1:]
    fresh = {"recovering": 0, "rested": 12, "alarmed": 0, "control": 0}
    assert {k: int(v) for k, v in start.items()} == fresh


HEAVY = ("flax", "optax", "orbax", "mujoco", "envs_mjx", "experiments", "matplotlib", "tyro")


def test_loading_imports_nothing_that_only_training_needs(written):
    code = (
        "import sys\nfrom farl_jax import deploy\n"
        "assert 'jax' not in sys.modules\n"
        f"policy = deploy.load({str(written)!r})\n"
        "policy.act([0.5, 0.0], policy.start())\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
