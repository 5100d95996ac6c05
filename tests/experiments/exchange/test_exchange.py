"""Demonstrations of others become ours, and ours theirs, number for number, or one line."""

import numpy as np
import pytest

from experiments.errors import UserError
from experiments.exchange import arrays, minari_sets
from experiments.exchange.episodes import Episode, Meaning, check_kind, to_dataset
from farl_jax.data.dataset import FIELDS, OPTIONAL, DatasetError, from_rollout
from tests.farl_jax.data.test_dataset import NONE, rollout

BOUNDS = np.array([-2.0, 0.0]), np.array([4.0, 1.0])
MEANING = Meaning(2, *BOUNDS)


def flat(lengths=(3, 4), **more):
    """Two episodes as flat arrays; x counts all steps, and the last of each episode fails."""
    size = sum(lengths)
    count, ends = np.arange(size, dtype=np.float32), np.cumsum(lengths) - 1
    last = np.isin(np.arange(size), ends)
    return {
        "observations": np.stack([count, -count], 1),
        "next_observations": np.stack([count + 1, -count - 1], 1),
        "actions": np.tile(np.float32([[4.0, 0.25]]), (size, 1)),
        "rewards": count * 0.5,
        "terminals": last & (np.arange(size) < lengths[0]),
        "timeouts": last & (np.arange(size) >= lengths[0]),
        "cost": last.astype(np.float32),
    } | more


def saved(folder, name="data.npz", **content):
    content = {k: v for k, v in flat(**content).items() if v is not None}
    path = folder / name
    if path.suffix == ".npz":
        np.savez(path, **content)
        return path
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


def brought(path, meaning=MEANING):
    return to_dataset(str(path), arrays.read(path), meaning)


@pytest.mark.parametrize("name", ["data.npz", "data.h5", "data.hdf5"])
def test_flat_arrays_become_episodes(tmp_path, name):
    data = brought(saved(tmp_path, name))
    assert set(data) == {*FIELDS, "success"} and not data.pop("success").any()
    np.testing.assert_array_equal(data["episode"], [0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(data["obs"][:, 0], np.arange(7))
    np.testing.assert_array_equal(data["next_obs"][:, 1], -np.arange(7) - 1)
    np.testing.assert_allclose(data["action"], [[1.0, -0.5]] * 7)
    np.testing.assert_array_equal(data["intended"], data["action"])
    np.testing.assert_array_equal(np.flatnonzero(data["failure"]), [2, 6])
    np.testing.assert_array_equal(np.flatnonzero(data["terminated"]), [2])
    np.testing.assert_array_equal(np.flatnonzero(data["truncated"]), [6])
    assert {k: v.dtype for k, v in data.items()} == {k: np.dtype(v) for k, v in FIELDS.items()}


def test_without_next_observations_the_last_step_of_an_episode_is_left_out(tmp_path):
    data = brought(saved(tmp_path, next_observations=None))
    np.testing.assert_array_equal(data["obs"][:, 0], [0, 1, 3, 4, 5])
    np.testing.assert_array_equal(data["next_obs"][:, 0], [1, 2, 4, 5, 6])


def test_parts_of_an_observation_lie_in_sorted_order_and_episodes_may_be_numbered(tmp_path):
    number = np.arange(7, dtype=np.float32)[:, None]
    parts = {"observations/b": number, "observations/a": -number, "observations": None}
    episode = np.repeat([5, 9], [4, 3])
    nothing = dict.fromkeys(("next_observations", "terminals", "timeouts"))
    data = brought(saved(tmp_path, **parts, **nothing, episode=episode))
    np.testing.assert_array_equal(
        data["obs"], np.stack([-number, number], 1)[[0, 1, 2, 4, 5], :, 0]
    )
    np.testing.assert_array_equal(data["episode"], [0, 0, 0, 1, 1])


def test_margins_success_and_intended_actions_are_taken_where_they_are(tmp_path):
    count = np.arange(7, dtype=np.float32)
    more = {"margin": count, "next_margin": count + 1, "infos/success": count == 2}
    more["infos/intended"] = np.zeros((7, 2), np.float32)
    data = brought(saved(tmp_path, **more))
    assert set(data) == {*FIELDS, *OPTIONAL}
    np.testing.assert_array_equal(data["next_margin"], count + 1)
    np.testing.assert_array_equal(np.flatnonzero(data["success"]), [2])
    np.testing.assert_allclose(data["intended"], [[-1 / 3, -1.0]] * 7, rtol=1e-6)


def test_a_users_functions_say_what_the_data_do_not(tmp_path):
    meaning = MEANING._replace(failure=lambda obs, info: obs[0] > 5.5, margin=lambda obs: obs[1])
    data = brought(saved(tmp_path, cost=None), meaning)
    np.testing.assert_array_equal(np.flatnonzero(data["failure"]), [5, 6])
    np.testing.assert_array_equal(data["next_margin"], data["next_obs"][:, 1])


@pytest.mark.parametrize(
    ("content", "meaning", "words"),
    [
        ({"cost": None}, MEANING, "no 'failure' or 'cost' of each step, only nothing"),
        ({}, MEANING._replace(failure_key="hurt"), "no 'hurt' of each step, only 'cost'"),
        ({}, MEANING._replace(success_key="won"), "no 'won' of each step"),
        ({"cost": np.full(7, np.nan)}, MEANING, "failure or success is not finite"),
        ({}, MEANING._replace(observation_size=3), "2 features of an observation .* has 3 and 2"),
        ({}, Meaning(2, *([b] for b in (-1, 1))), "2 of an action; .* has 2 and 1"),
        ({"rewards": np.full(7, np.nan)}, MEANING, "'reward' has a wrong shape or is not finite"),
        ({"observations": np.full((7, 2), np.inf)}, MEANING, "'obs' has a wrong shape or is not"),
        ({"observations": np.zeros((7, 8, 8))}, MEANING, "flat vectors"),
        ({"actions": np.full((7, 2), 9.0)}, MEANING, "an action of 9 lies beyond"),
        ({"actions": None}, MEANING, "no array 'actions', only cost, "),
        ({"rewards": np.zeros(6)}, MEANING, "arrays differ in length"),
        ({"terminals": None, "timeouts": None}, MEANING, "nothing says where episodes end"),
        ({"lengths": (7, 0)}, MEANING, "holds 1 episodes: at least 2"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_file(tmp_path, content, meaning, words):
    path = saved(tmp_path, **content)
    with pytest.raises(DatasetError, match=words) as caught:
        brought(path, meaning)
    assert str(caught.value).startswith((str(path), f"dataset {path}"))
    assert "\n" not in str(caught.value)


def test_failure_demonstrations_need_a_failure(tmp_path):
    data = brought(saved(tmp_path, cost=np.zeros(7)))
    check_kind("here", "task", data)
    with pytest.raises(DatasetError, match="here holds no failing step"):
        check_kind("here", "failure", data)


@pytest.mark.parametrize("name", ["data.npz", "data.h5"])
def test_a_file_that_is_none(tmp_path, name):
    if name.endswith(".h5"):
        pytest.importorskip("h5py")
    (tmp_path / name).write_bytes(b"\x93NUMPY no")
    with pytest.raises(DatasetError, match="cannot be read"):
        arrays.read(tmp_path / name)


@pytest.mark.parametrize("margins", [True, False])
def test_a_trip_through_minari_changes_no_number(tmp_path, margins):
    minari = pytest.importorskip("minari")
    truncated = NONE.copy()
    truncated[[1, 3]] = True
    steps = rollout(NONE, truncated)
    action = np.random.default_rng(0).uniform(-1, 1, (4, 2, 3)).astype(np.float32)
    decision = steps.decision.replace(action=action, task_action=np.flip(action, 1))
    # within an episode, a step begins where the one before ended
    steps = steps.replace(decision=decision, next_obs=steps.obs + np.float32([10.0, 0.0]))
    if not margins:
        steps = steps.replace(margin=None, next_margin=None)
    ours = from_rollout(steps)
    name = minari_sets.write(tmp_path, "env:a.b:make", "failure", ours)
    assert name == "farl/env-a-b-make/failure-v0"
    theirs = minari.MinariDataset(tmp_path / name / "data")
    first = theirs[0]
    np.testing.assert_array_equal(first.observations[:-1], ours["obs"][:2])
    np.testing.assert_array_equal(first.actions, ours["action"][:2])
    np.testing.assert_array_equal(first.infos["cost"][1:], ours["failure"][:2])
    episodes, low, high = minari_sets.read(str(tmp_path / name))
    again = to_dataset("trip", episodes, Meaning(2, low, high))
    assert set(again) == set(ours)
    for field, value in ours.items():
        assert again[field].dtype == value.dtype
        np.testing.assert_array_equal(again[field], value, err_msg=field)


def test_minari_sets_that_are_not_there_or_cannot_be_used(tmp_path, monkeypatch):
    minari = pytest.importorskip("minari")
    from gymnasium.spaces import Box, Discrete
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv(minari_sets.STORE, str(tmp_path))
    with pytest.raises(
        DatasetError, match="here-v0 is neither a file nor a readable Minari dataset"
    ):
        minari_sets.read("nothing/here-v0")
    buffer = EpisodeBuffer(
        observations=np.zeros((3, 1), np.float32),
        actions=np.zeros(2, np.int64),
        rewards=[0.0, 0.0],
        terminations=[False, False],
        truncations=[False, True],
    )
    spaces = {"observation_space": Box(-1, 1, (1,)), "action_space": Discrete(3)}
    minari.create_dataset_from_buffers("discrete-v0", [buffer], **spaces)
    with pytest.raises(DatasetError, match=r"discrete-v0: its actions must be .*got Discrete\(3\)"):
        minari_sets.read("discrete-v0")


@pytest.mark.parametrize(("module", "act"), [("minari", minari_sets.read), ("h5py", arrays._hdf5)])
def test_an_extra_that_is_not_installed_is_one_line(monkeypatch, tmp_path, module, act):
    import sys

    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"needs {module}: pip install 'farl-jax\[{module}\]'"):
        act(tmp_path / "x.h5")


def test_an_episode_without_steps_is_left_out():
    empty = Episode(np.zeros((1, 2)), np.zeros((0, 2)), *[np.zeros(0)] * 3, {"cost": []}, None)
    some = Episode(np.ones((3, 2)), np.ones((2, 2)), *[np.zeros(2)] * 3, {"cost": [0, 1]}, None)
    data = to_dataset("x", [some, empty, some], MEANING)
    np.testing.assert_array_equal(data["episode"], [0, 0, 1, 1])
