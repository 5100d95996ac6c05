"""An exported decision is the training code's: whole episodes, with recoveries, in both formats."""

import jax
import numpy as np
import pytest

from farl_jax import deploy
from farl_jax.decision import make_decide, to_onnx, to_stablehlo
from farl_jax.deploy import DeployError
from tests.deployed import CONFIG, NETS, make_case, training_steps, with_slots, write_toy
from tests.toy import make_toy

STEPS = 45  # two episodes of the walker at least


def compare(policy: deploy.SafePolicy, seen) -> np.ndarray:
    """Act on what training saw, starting afresh with each episode; returns who acted."""
    acted, memory = [], policy.start()
    for state, decision in seen:
        if int(state.step_count[0]) == 0:
            memory = policy.start()
        action, memory, info = policy.act(np.asarray(state.obs[0]), memory)
        np.testing.assert_allclose(action, decision.action[0], atol=1e-5)
        np.testing.assert_allclose(info["risk"], decision.risk[0], atol=1e-5)
        assert info["intervened"] == bool(decision.intervened[0])
        acted.append(info["intervened"])
    return np.array(acted)


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    "name",
    [
        "farl",
        "uni_o4",
        pytest.param("simple_critic", marks=SLOW),
        pytest.param("mppi", marks=SLOW),
        pytest.param("no_recovery", marks=SLOW),
    ],
)
def test_a_stablehlo_program_decides_as_evaluation_does(tmp_path, name):
    folder = tmp_path / "policy"
    case = write_toy(folder, name)
    seen = training_steps(case, make_toy(1), CONFIG, NETS, STEPS)
    starts = sum(int(state.step_count[0]) == 0 for state, _ in seen)
    acted = compare(deploy.load(folder), seen)
    assert starts >= 2
    assert (0.1 < acted.mean() < 0.9) if case.method.gated else not acted.any()


@pytest.mark.parametrize("name", ["farl", pytest.param("simple_critic", marks=SLOW)])
def test_an_onnx_program_decides_as_evaluation_does(tmp_path, name):
    pytest.importorskip("jax2onnx")
    folder = tmp_path / "policy"
    case = write_toy(folder, name, ("onnx",))
    seen = training_steps(case, make_toy(1), CONFIG, NETS, STEPS)
    acted = compare(deploy.load(folder, runtime="onnx"), seen)
    assert 0.1 < acted.mean() < 0.9


@pytest.mark.slow
def test_what_onnx_cannot_say_is_one_line():
    pytest.importorskip("jax2onnx")
    with pytest.raises(DeployError, match="mppi cannot be written as ONNX") as error:
        to_onnx(make_case("mppi").decide, "mppi")
    assert "\n" not in str(error.value)


def test_memory_is_the_gates_and_starts_with_nothing():
    memory = {v["name"]: v for v in make_case("farl").decide.memory}
    assert {name: v["start"] for name, v in memory.items()} == {
        "recovering": [0],
        "rested": [12],
        "alarmed": [0],
        "control": [0],
    }
    plan = {v["name"]: v for v in make_case("mppi").decide.memory}["plan"]
    assert plan["shape"] == [4, 1] and plan["start"] == [0.0] * 4
    assert make_case("uni_o4").decide.memory == []


@pytest.mark.slow
def test_a_plan_does_not_depend_on_how_many_are_planned_at_once():
    case = make_case("mppi")
    other = make_decide(NETS, with_slots(CONFIG, 3), case.method, case.learnt, case.gate)
    obs = np.array([1.1, 0.0], np.float32)
    values = [np.array(v["start"], v["dtype"]).reshape(v["shape"]) for v in case.decide.memory]
    one, two = (jax.jit(d.program)(obs, *values) for d in (case.decide, other))
    np.testing.assert_allclose(one[0], two[0], atol=1e-6)


def test_a_program_is_for_both_platforms_and_names_no_file_of_this_machine():
    from jax import export

    data = to_stablehlo(make_case("farl").decide)
    assert export.deserialize(bytearray(data)).platforms == ("cpu", "cuda")
    assert b".py" not in data and b"/farl_jax/" not in data
