"""Kept online steps: whole episodes across files, the newest ones, none twice after a resume."""

import jax
import numpy as np
import pytest

from farl_jax.data.dataset import DatasetError, from_rollout
from farl_jax.data.transitions import Recorder, read
from tests.farl_jax.data.test_dataset import rollout

STEPS = 3 * 2  # of a rollout: 3 steps of 2 environments


def rollouts(number, ends=()):
    """One long rollout of 2 environments and its pieces; environment 0 ends after steps `ends`."""
    truncated = np.zeros((3 * number, 2), bool)
    truncated[list(ends), 0] = True
    whole = jax.tree.map(np.array, rollout(np.zeros_like(truncated), truncated))
    part = lambda i: jax.tree.map(lambda leaf: leaf[3 * i : 3 * i + 3], whole)
    return whole, [part(i) for i in range(number)]


def record(folder, pieces, limit=1000, step=0, every=1):
    recorder = Recorder(folder, limit, step)
    for i, piece in enumerate(pieces, 1):
        recorder.add(piece)
        if i % every == 0:
            recorder.write(step + STEPS * i)
    return recorder


@pytest.mark.parametrize("every", [1, 2, 3])
def test_files_join_to_the_episodes_of_one_rollout(tmp_path, every):
    whole, pieces = rollouts(6, ends=(4, 9))
    record(tmp_path, pieces, every=every)
    data = read(tmp_path)
    assert not data.pop("intervened").any()
    wanted = from_rollout(whole)
    assert set(data) == set(wanted) and len(list(tmp_path.iterdir())) == 6 // every
    for name, value in wanted.items():
        assert data[name].dtype == value.dtype
        np.testing.assert_array_equal(data[name], value, err_msg=name)


def test_the_newest_steps_are_there_and_little_more(tmp_path):
    whole, pieces = rollouts(6)
    record(tmp_path, pieces, limit=2 * STEPS)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [
        "000000000024-000000000030.npz",
        "000000000030-000000000036.npz",
    ]
    last = from_rollout(jax.tree.map(lambda leaf: leaf[-6:], whole))
    np.testing.assert_array_equal(read(tmp_path)["obs"], last["obs"])
    record(tmp_path / "late", pieces, limit=STEPS + 1, every=6)  # what waits is bounded, too
    assert len(read(tmp_path / "late")["reward"]) == 2 * STEPS


def test_a_resumed_run_writes_the_steps_after_its_checkpoint_again(tmp_path):
    _, pieces = rollouts(4)
    record(tmp_path / "a", pieces)
    killed = record(tmp_path / "b", pieces[:3])
    killed.add(pieces[3])  # never written
    record(tmp_path / "b", pieces[2:], step=2 * STEPS)
    theirs, ours = read(tmp_path / "a"), read(tmp_path / "b")
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in "ab"]
    assert names[0] == names[1]
    np.testing.assert_array_equal(theirs["obs"], ours["obs"])


def test_a_step_that_is_not_saved_yet_waits(tmp_path):
    _, pieces = rollouts(3)
    recorder = record(tmp_path, pieces, every=9)
    recorder.write(2 * STEPS)
    assert [p.name for p in tmp_path.iterdir()] == ["000000000000-000000000012.npz"]


def test_a_gap_ends_an_episode_and_diverged_steps_are_left_out(tmp_path):
    _, pieces = rollouts(3)
    record(tmp_path, pieces[:1])
    record(tmp_path, pieces[2:], step=2 * STEPS)  # a session without recording lies between
    assert read(tmp_path)["episode"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    diverged = np.zeros((3, 2), bool)
    diverged[1, 0] = True
    record(tmp_path / "b", [pieces[0].replace(diverged=diverged)])
    data = read(tmp_path / "b")
    assert data["obs"][:, 0].tolist() == [0, 20, 1, 11, 21]
    assert data["episode"].tolist() == [0, 1, 2, 2, 2]


def test_recovered_steps_are_marked(tmp_path):
    _, (piece,) = rollouts(1)
    acted = np.array([[False, True], [False, False], [True, False]])
    record(tmp_path, [piece.replace(decision=piece.decision.replace(intervened=acted))])
    assert read(tmp_path)["intervened"].tolist() == [False, False, True, True, False, False]


def test_nothing_kept_is_none_and_damage_names_the_file(tmp_path):
    assert read(tmp_path / "nowhere") is None
    _, pieces = rollouts(1)
    record(tmp_path, pieces)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for name, bad in (
        ("000000000006-000000000012.npz", content[:100]),
        ("000000000006-000000000012.npz", b""),
        ("000000000006-000000000099.npz", content),  # of another length than its name says
    ):
        (tmp_path / name).write_bytes(bad)
        with pytest.raises(DatasetError, match=rf"{name} cannot be read \(.*; delete it") as told:
            read(tmp_path)
        assert "\n" not in str(told.value)
        (tmp_path / name).unlink()
