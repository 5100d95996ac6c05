"""A task outside the package plugs in by its import path, and what is no task is refused."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import EnvError, Episode, Readings, make
from examples.push_upright import PushUpright

PATH = "examples.push_upright:PushUpright"


def margin(quat: list[float]) -> float:
    zero, two = jnp.zeros(3), jnp.zeros((2, 3))
    readings = Readings(zero, zero, two, two, zero, jnp.array(quat), {})
    return float(PushUpright().failure_margin(readings, Episode(zero, zero, zero)))


def test_an_import_path_makes_the_environment_and_takes_overrides():
    env = make(PATH, "native", max_lift=0.01)
    assert env.name == "push_upright" and env.task.max_lift == 0.01
    state = jax.jit(env.reset)(jax.random.key(0))
    assert np.isclose(state.failure_margin, 0.01, atol=1e-4) and not state.failure


@pytest.mark.parametrize(
    ("degrees", "expected"), [(0.0, 0.004), (3.0, 0.004 - 0.04 * np.sin(np.radians(3.0)))]
)
def test_the_margin_is_what_the_rim_may_still_rise(degrees, expected):
    half = np.radians(degrees) / 2
    assert np.isclose(margin([np.sin(half), 0.0, 0.0, np.cos(half)]), expected, atol=1e-5)
    spun = [0.0, 0.0, np.sin(1.0), np.cos(1.0)]  # a turn about the upright axis tips nothing
    assert np.isclose(margin(spun), 0.004, atol=1e-5)


def test_a_puck_on_its_side_has_failed():
    assert margin([np.sqrt(0.5), 0.0, 0.0, np.sqrt(0.5)]) < 0.0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.at.all:Task", "cannot import"),
        ("examples.push_upright:Missing", "cannot import"),
        (":PushUpright", "cannot import"),
        ("examples.push_upright:Readings", "is not a task"),
    ],
)
def test_what_is_no_task_is_one_line(path, said):
    with pytest.raises(EnvError, match=said) as caught:
        make(path)
    assert "\n" not in str(caught.value)


OWN = """
import dataclasses
import jax.numpy as jnp
from envs_mjx.bounded_push import BoundedPush
@dataclasses.dataclass(frozen=True)
class Mine(BoundedPush):
    {}
"""
FAULTS = {
    "episode_limit: int = True": "episode_limit must be an integer of at least 1; got 'True'",
    "episode_limit: int = 10**30": "episode_limit must be an integer",
    "name = None": "name must be printable text",
    "name = 'a\\nb'": "name must be printable text",
    "name = 'a' * 5000": "name must be printable text of 1 to 200 characters",
    "expert_return = float('nan')": "expert_return must be a finite number; got 'nan'",
    "expert_return = 1": "expert_return must be above random_return",
    "safe_margin = 'x'": "safe_margin must be a finite number",
    "hand_start = (0.0, 0.0)": "hand_start must be 3 finite numbers",
    "goal_low = 'abc'": "goal_low must be 3 finite numbers",
    "scene_parts = 3": "scene_parts must be of type SceneParts",
    "def place(self, k): return None": "place must return float32[2] and float32[2]; it",
    "def reward(self, r, a, e): return a": "reward must return float32[]; it returns float32[4]",
    "def reward(self, r, a, e): return {}['x']": "mine.py, line 7: KeyError: 'x'",
    "def reward(self, r): return 1.0": "TypeError: Mine.reward() takes 2",
    "def success(self, r, e): return jnp.zeros(2, bool)": "success must return bool[]",
    "def success(self, r, e): return bool(r.tcp[0] > 0)": "mine.py, line 7: TracerBool",
    "def failure_margin(self, r, e): return True": "failure_margin must return float32[]",
    "def failure_margin(self, r, e): raise SystemExit(3)": "mine.py, line 7: SystemExit: 3",
    "def expert(self, obs): return obs[:3]": "expert must return float32[4]; it returns float32[3]",
    "def careless(self, obs, traits): return obs": "careless must return float32[4]",
    "def careless_traits(self, key): return 'x'": "does not work: TypeError",
    "def recovery(self, obs): return 1 / 0": "mine.py, line 7: ZeroDivisionError",
}


@pytest.mark.parametrize(("line", "said"), FAULTS.items(), ids=list(FAULTS))
def test_faults_of_a_task_are_one_line_before_anything_runs(tmp_path, monkeypatch, line, said):
    (tmp_path / "mine.py").write_text(OWN.replace("{}", line, 1))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(EnvError) as caught:
        make("mine:Mine", "native")
    sys.modules.pop("mine", None)
    assert said in str(caught.value) and "mine" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "class E(BaseException): pass\nraise E('x')",
        "raise GeneratorExit",
        "class M(type):\n    def __getattr__(c, n): 1 / 0\nclass Mine(metaclass=M): pass",
    ],
)
def test_whatever_a_module_raises_is_its_own_fault(tmp_path, monkeypatch, text):
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    with pytest.raises(EnvError, match="'mine:Mine' does not work"):
        make("mine:Mine", "native")
    sys.modules.pop("mine", None)
