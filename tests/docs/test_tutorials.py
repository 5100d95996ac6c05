"""The code that the tutorials and the Python page show works as it stands."""

import jax
import jax.numpy as jnp
import numpy as np

import envs_mjx
from envs_mjx import Episode, Readings
from examples.push_upright import PushUpright
from tests.docs.pages import DOCS, python_blocks


def test_the_tutorials_task_is_the_examples():
    (code,) = python_blocks(DOCS / "tutorials" / "own-task.md")
    names = {"__name__": "tutorial"}
    exec(code, names)
    task = names["PushUpright"]()
    env = envs_mjx.make(task, "native")
    assert (env.name, env.safe_margin) == ("push_upright", 0.003)
    zero, two, half = jnp.zeros(3), jnp.zeros((2, 3)), np.radians(3.0) / 2
    tilted = jnp.array([np.sin(half), 0.0, 0.0, np.cos(half)])
    readings, episode = Readings(zero, zero, two, two, zero, tilted, {}), Episode(zero, zero, zero)
    ours, theirs = (t.failure_margin(readings, episode) for t in (task, PushUpright()))
    np.testing.assert_allclose(ours, theirs, atol=1e-7)


def test_the_python_page_steps_an_environment():
    (code,) = python_blocks(DOCS / "reference" / "python.md")
    names = {}
    exec(code, names)
    assert names["state"].obs.shape == (39,) and names["batch"].num_envs == 64
    assert isinstance(names["state"].reward, jax.Array)
