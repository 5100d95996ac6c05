"""Spaces as flat arrays: what is learnt on, and what is refused in one line."""

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete

from envs_gym.errors import HostError
from envs_gym.spaces import action_scale, flatten, observation_size

FLAT = Box(-np.inf, np.inf, (3,))


def test_a_dict_is_flat_in_sorted_order_of_its_keys():
    space = Dict({"b": Box(0, 1, (2,)), "a": Box(0, 1, (1,))})
    assert observation_size(space) == 3 and observation_size(FLAT) == 3
    flat = flatten(space, {"b": [2.0, 3.0], "a": [1.0]})
    np.testing.assert_array_equal(flat, [1, 2, 3])
    assert flat.dtype == np.float32
    rows = flatten(space, {"b": np.ones((5, 2)), "a": np.zeros((5, 1))})
    assert rows.shape == (5, 3)


def test_actions_are_rescaled_from_any_finite_bounds_and_back():
    scale = action_scale(Box(np.float32([-2, 0]), np.float32([4, 1])))
    np.testing.assert_allclose(
        scale.to_env(np.array([[-1, -1], [0, 0], [1, 9]])), [[-2, 0], [1, 0.5], [4, 1]]
    )
    np.testing.assert_allclose(scale.from_env(np.array([4.0, 0.25])), [1.0, -0.5])
    exact = np.random.default_rng(0).uniform(-1, 1, 1000).astype(np.float32)
    unit = action_scale(Box(-1.0, 1.0, (1,)))
    np.testing.assert_array_equal(unit.to_env(exact), exact)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box(0, 255, (64, 64, 3), np.uint8), "image"),
        (Discrete(4), "Discrete"),
        (Dict({"camera": Box(0, 1, (8, 8))}), "'camera' is an image"),
        (Dict({"inner": Dict({"a": FLAT})}), "'inner' is Dict"),
        (Dict({}), "empty"),
    ],
)
def test_observations_that_cannot_be_learnt(space, words):
    with pytest.raises(HostError, match=words):
        observation_size(space)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Discrete(4), "discrete"),
        (MultiDiscrete([2, 2]), "discrete"),
        (Box(-np.inf, np.inf, (2,)), "infinite bounds"),
        (Box(np.array([0.0, 0.0]), np.array([1.0, 0.0])), "empty range at index 1"),
        (Box(0, 1, (2, 2)), "only a flat Box"),
    ],
)
def test_actions_that_cannot_be_learnt(space, words):
    with pytest.raises(HostError, match=words):
        action_scale(space)


@pytest.mark.parametrize("found", [np.zeros(4), 1.0, {"x": 1}, "x"])
def test_an_observation_of_another_shape(found):
    with pytest.raises(HostError, match="observation"):
        flatten(FLAT, found)
