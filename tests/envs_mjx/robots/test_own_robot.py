"""A third robot is one file: the gantry of examples/, by its import path."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import EnvError, Robot, State, make
from envs_mjx.robots.sawyer import SAWYER
from examples.gantry import Gantry, GantryPush

PATH = "examples.gantry:GantryPush"


def test_a_third_robot_pushes_the_puck_to_the_goal() -> None:
    env = make(PATH, "native")
    assert (env.observation_size, env.action_size, env.robot.name) == (15, 3, "gantry")

    def act(state: State, _: None) -> tuple[State, jax.Array]:
        state = jax.vmap(env.step)(state, jax.vmap(env.expert)(state.obs))
        return state, state.success

    start = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 16))
    _, reached = jax.jit(lambda s: jax.lax.scan(act, s, None, length=240))(start)
    assert np.mean(reached.any(axis=0)) > 0.9


def test_an_action_of_the_wrong_size_is_refused_in_the_robots_own_words() -> None:
    env = make(PATH, "native")
    with pytest.raises(EnvError, match=r"shape \(3,\), got \(4,\)"):
        env.step(env.reset_at(jnp.array([0.0, 0.65]), jnp.array([0.0, 0.85])), jnp.zeros(4))


@pytest.mark.parametrize("robot", [SAWYER, Gantry()])
def test_robots_are_robots(robot: Robot) -> None:
    assert isinstance(robot, Robot) and len(robot.frame_positions) == robot.frame_size
    assert not isinstance(GantryPush(), Robot)
