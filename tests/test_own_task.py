"""A task outside the package plugs in by its import path, and what is no task is refused."""

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
        ("examples.push_upright:Readings", "is no task"),
    ],
)
def test_what_is_no_task_is_one_line(path, said):
    with pytest.raises(EnvError, match=said) as caught:
        make(path)
    assert "\n" not in str(caught.value)
