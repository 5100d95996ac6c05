"""Demonstration files: episodes cut right, damage told in one line, nothing in a file executed."""

import json
import os
import pickle
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.data import dataset
from farl_jax.data.dataset import (
    FIELDS,
    DatasetError,
    concatenate,
    from_rollout,
    load_dataset,
    num_episodes,
    pad_to_power_of_two,
    save_dataset,
    select_episodes,
    split_by_episode,
    to_device,
)
from farl_jax.data.rollout import plain_decision
from farl_jax.types import Transition

HEADER = {"task": "bounded_push", "kind": "task", "seed": 3}


def rollout(terminated, truncated):
    """[T, N] steps whose observation is (10 t + n, -n): every row tells where it came from."""
    terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
    time, row = np.indices(terminated.shape)
    obs = np.stack([10.0 * time + row, -row], -1).astype(np.float32)
    number = obs[..., 0]
    return Transition(
        obs=obs,
        decision=plain_decision(jnp.asarray(np.stack([number, -number, number * 0.01], -1))),
        reward=number + 0.5,
        failure=number % 2 == 1,
        first_failure=np.zeros_like(terminated),
        success=terminated,
        terminated=terminated,
        truncated=truncated,
        diverged=np.zeros_like(terminated),
        next_obs=obs + 10.0,
        margin=number * 0.1,
        next_margin=number * 0.1 + 1.0,
        episode_return=number,
        failing_steps=time,
        step_count=time,
    )


def make(lengths, seed=0):
    """A valid dataset with episodes of these lengths."""
    rng, size = np.random.default_rng(seed), sum(lengths)
    data = {
        k: rng.normal(size=(size, 3) if k in dataset.WIDE else size).astype(v)
        for k, v in FIELDS.items()
    }
    data |= {name: np.clip(data[name], -1.0, 1.0) for name in ("action", "intended")}
    return data | {"episode": np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)}


NONE = np.zeros((4, 2))


def test_a_rollout_becomes_episodes_environment_after_environment():
    terminated, truncated = NONE.copy(), NONE.copy()
    terminated[1, 0] = truncated[0, 1] = True
    data = from_rollout(rollout(terminated, truncated))
    np.testing.assert_array_equal(data["obs"][:, 0], [0, 10, 20, 30, 1, 11, 21, 31])
    np.testing.assert_array_equal(data["episode"], [0, 0, 1, 1, 2, 3, 3, 3])
    np.testing.assert_array_equal(data["terminated"], np.arange(8) == 1)
    np.testing.assert_array_equal(data["truncated"], np.arange(8) == 4)


def test_what_was_intended_is_kept_beside_what_was_done():
    steps = rollout(NONE, NONE)
    wanted = jnp.full_like(steps.decision.action, 0.25)
    data = from_rollout(steps.replace(decision=steps.decision.replace(task_action=wanted)))
    np.testing.assert_array_equal(data["intended"], 0.25)
    assert np.abs(data["action"] - 0.25).max() > 1.0


def test_all_fields_of_a_row_stay_together_and_actions_are_clipped():
    data = from_rollout(rollout(NONE, NONE))
    number = data["obs"][:, 0]
    np.testing.assert_allclose(data["reward"], number + 0.5)
    np.testing.assert_array_equal(data["failure"], number % 2 == 1)
    np.testing.assert_allclose(data["next_obs"], data["obs"] + 10)
    np.testing.assert_allclose(data["margin"], number * 0.1, rtol=1e-6)
    np.testing.assert_allclose(data["next_margin"] - data["margin"], 1.0, rtol=1e-6)
    np.testing.assert_array_equal(data["intended"], data["action"])
    clipped = [np.minimum(number, 1), np.maximum(-number, -1), number * 0.01]
    np.testing.assert_allclose(data["action"], np.stack(clipped, 1), rtol=1e-6)
    assert {k: v.dtype for k, v in data.items()} == {k: np.dtype(v) for k, v in FIELDS.items()}


def test_a_gap_starts_a_new_episode_and_an_end_inside_a_gap_is_not_forgotten():
    keep = np.array([[1, 0], [0, 0], [1, 1], [1, 1]], bool)
    truncated = NONE.copy()
    truncated[1] = True  # falls into both gaps
    data = from_rollout(rollout(NONE, truncated), keep)
    np.testing.assert_array_equal(data["obs"][:, 0], [0, 20, 30, 21, 31])
    np.testing.assert_array_equal(data["episode"], [0, 1, 1, 2, 2])
    nothing = from_rollout(rollout(NONE, NONE), np.zeros((4, 2), bool))
    assert len(nothing["episode"]) == 0 and nothing["obs"].shape == (0, 2)


def test_concatenation_renumbers_and_selection_keeps_whole_episodes():
    first, second = make([2, 3]), make([1, 4], seed=1)
    second["episode"] += 7
    joined = concatenate(first, second)
    np.testing.assert_array_equal(joined["episode"], np.repeat([0, 1, 2, 3], [2, 3, 1, 4]))
    assert joined["episode"].dtype == np.int32 and num_episodes(joined) == 4
    picked = select_episodes(joined, np.array([3, 1]))
    np.testing.assert_array_equal(
        picked["obs"], np.concatenate([first["obs"][2:], second["obs"][1:]])
    )
    np.testing.assert_array_equal(picked["episode"], [0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize(("share", "held"), [(0.0, 1), (0.3, 3), (0.95, 8)])
def test_split_is_disjoint_whole_and_complete(share, held):
    data = make(list(range(3, 12)))  # nine episodes, lengths all different
    training, held_out = split_by_episode(data, share, seed=0)
    rows = lambda part: {tuple(row) for row in part["obs"]}
    assert not rows(training) & rows(held_out)
    assert rows(training) | rows(held_out) == rows(data)
    lengths = np.concatenate([np.bincount(part["episode"]) for part in (training, held_out)])
    assert sorted(lengths) == list(range(3, 12)) and num_episodes(held_out) == held


def test_split_leaves_something_to_train_on():
    training, _ = split_by_episode(make([2, 2, 2]), 0.95, seed=0)
    assert num_episodes(training) >= 1


def test_split_depends_on_the_seed_alone():
    data = make([4] * 12)
    chosen = [split_by_episode(data, 0.25, seed)[1]["obs"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(chosen[0], chosen[1])
    assert not np.array_equal(chosen[0], chosen[2])


def test_one_episode_cannot_be_split():
    with pytest.raises(DatasetError, match="hold out one of 1"):
        split_by_episode(make([5]), 0.5, seed=0)


@pytest.mark.parametrize("size", [1, 1023, 1024, 1025, 3000])
def test_padding_reaches_a_power_of_two_and_never_leaks(size):
    data = make([size])
    data["reward"] = np.arange(1, size + 1).astype(np.float32)
    device = to_device(data, ("reward", "obs"), least=1024)
    assert device.fields["reward"].shape[0] == {1025: 2048, 3000: 4096}.get(size, 1024)
    batch = device.sample(jax.random.key(0), 20_000)
    assert batch["reward"].min() == 1 and batch["reward"].max() == size
    rows = np.asarray(batch["reward"]).astype(int) - 1
    np.testing.assert_array_equal(batch["obs"], data["obs"][rows])  # rows stay aligned
    assert abs(rows.mean() - (size - 1) / 2) <= 0.02 * size  # and uniform


def test_an_empty_array_pads_to_zeros():
    np.testing.assert_array_equal(pad_to_power_of_two(np.zeros((0, 2)), 4), np.zeros((4, 2)))


# ---- files


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "demos" / "task.npz"
    save_dataset(path, make([2, 3]), HEADER)
    return path


def refused(path, **options):
    """The message of the DatasetError that loading must raise: one line that names the file."""
    with pytest.raises(DatasetError) as caught:
        load_dataset(path, **options)
    text = str(caught.value)
    assert "\n" not in text and path.name in text and len(text) < 500
    return text


def rewrite(path, **changes):
    """Save again with some members replaced (None: left out)."""
    with np.load(path) as archive:
        content = {k: archive[k] for k in archive.files} | changes
    np.savez(path, **{k: v for k, v in content.items() if v is not None})


def test_files_come_back_bit_for_bit(saved):
    data = make([2, 3])
    data["obs"][0] = [np.float32(1e-42), np.float32(-0.0), np.nextafter(np.float32(1), 2)]
    save_dataset(saved, data, HEADER)
    content, metadata = load_dataset(saved, task="bounded_push")
    assert metadata == HEADER | {"format": dataset.FORMAT} and list(content) == list(FIELDS)
    for name, field in data.items():
        assert content[name].dtype == field.dtype
        assert content[name].tobytes() == field.tobytes()
    assert os.listdir(saved.parent) == ["task.npz"]  # no temporary is left


def test_a_failed_save_leaves_the_old_file(saved, monkeypatch):
    before = saved.read_bytes()
    real = np.savez

    def disk_full(target, **content):
        real(target, **dict(list(content.items())[:2]))
        raise OSError("no space left")

    monkeypatch.setattr(np, "savez", disk_full)
    with pytest.raises(OSError, match="no space"):
        save_dataset(saved, make([9]), HEADER)
    assert saved.read_bytes() == before


def test_missing_file(tmp_path):
    assert "farl demos" in refused(tmp_path / "task.npz")
    assert "no dataset" in refused(tmp_path / "")  # a folder is none either


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    assert "damaged" in refused(saved)


def _same(path, data):
    content, metadata = load_dataset(path)
    return metadata == HEADER | {"format": dataset.FORMAT} and all(
        content[k].tobytes() == v.tobytes() for k, v in data.items()
    )


def test_any_flipped_bit_is_reported_or_harmless(saved):
    """Every byte of the zip's own structure and a sample of the contents, one bit at a time."""
    good, data, wrong = saved.read_bytes(), make([2, 3]), []
    directory = good.index(b"PK\x01\x02")
    places = [(i, bit) for i in range(directory, len(good), 3) for bit in (0, 3, 7)]
    places += [(i, i % 8) for i in range(0, directory, 11)]
    places += [(directory + i, bit) for i in range(8, 14) for bit in range(8)]  # flags, method
    for place, bit in places:
        bad = bytearray(good)
        bad[place] ^= 1 << bit
        saved.write_bytes(bad)
        try:
            if not _same(saved, data):
                wrong.append((place - directory, bit, "other data accepted"))
        except DatasetError as error:
            assert "\n" not in str(error)
        except Exception as error:
            wrong.append((place - directory, bit, repr(error)[:80]))
    assert not wrong, f"{len(wrong)} of {len(places)}: {wrong[:6]}"


def test_a_file_of_another_kind(saved):
    np.savez(saved, x=np.ones(3))
    assert "damaged" in refused(saved)
    saved.write_text("hello\nworld")
    assert "damaged" in refused(saved)


def test_a_bare_array_is_not_a_dataset(saved):
    with saved.open("wb") as file:
        np.save(file, np.ones(3))
    refused(saved)


@pytest.mark.parametrize("header", ["[]", "3", "not json"])
def test_a_header_that_is_no_record(saved, header):
    rewrite(saved, metadata=np.array(header))
    refused(saved)


def test_wrong_format(saved):
    rewrite(saved, metadata=np.array(json.dumps(HEADER | {"format": 99})))
    assert "must have format 2; got 99" in refused(saved)
    rewrite(saved, metadata=np.array(json.dumps(HEADER)))
    assert "format 2; got null" in refused(saved)


def test_wrong_task(saved):
    text = refused(saved, task="bounded_soccer")
    assert "bounded_push" in text and "bounded_soccer" in text


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field(saved, name):
    rewrite(saved, **{name: None})
    refused(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reward", np.ones(4, np.float32)),  # too short
        ("reward", np.ones(5)),  # float64
        ("failure", np.ones(5, np.float32)),
        ("margin", np.ones((5, 1), np.float32)),
        ("obs", np.ones(5, np.float32)),
        ("episode", np.int32(3)),
        ("next_obs", np.ones((5, 2), np.float32)),  # obs has 3 columns
        ("intended", np.ones((5, 2), np.float32)),  # as action
        ("action", np.full((5, 3), 1.5, np.float32)),
        ("other", np.ones(3)),
    ],
)
def test_a_field_of_another_shape_or_kind(saved, name, value):
    rewrite(saved, **{name: value})
    refused(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["obs", "reward", "next_margin"])
def test_numbers_that_are_not_finite(saved, name, value):
    field = make([2, 3])[name]
    field.flat[-1] = value
    rewrite(saved, **{name: field})
    assert repr(name) in refused(saved)


@pytest.mark.parametrize("text", ["{'descr':", "('", "(" * 90])
def test_a_member_whose_header_does_not_end(saved, text):
    """NumPy hands such a header to Python's tokenizer, whose errors are of no usual kind."""
    with zipfile.ZipFile(saved) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["obs.npy"] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()
    with zipfile.ZipFile(saved, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "damaged" in refused(saved)


def test_what_is_compressed_is_not_unpacked(saved):
    """Some kilobytes could become all of the memory."""
    with np.load(saved) as archive:
        np.savez_compressed(saved, **{name: archive[name] for name in archive.files})
    assert "compressed" in refused(saved)


def test_an_environment_of_other_sizes(saved):
    assert load_dataset(saved, sizes=(3, 3))
    assert "39 observation and 3 action features; got 3 and 3" in refused(saved, sizes=(39, 3))
    assert "39 observation and 4 action" in refused(saved, sizes=(39, 4))


def test_no_rows(saved):
    save_dataset(saved, make([]), HEADER)
    assert "empty" in refused(saved)


class Bomb:
    """Unpickling this would create a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_no_pickle_is_executed(saved, tmp_path):
    target = tmp_path / "executed"
    rewrite(saved, reward=np.array([Bomb(target)] * 5, dtype=object))
    assert "damaged" in refused(saved)
    saved.write_bytes(pickle.dumps(Bomb(target)))
    assert "damaged" in refused(saved)
    assert not target.exists()
    np.load(saved, allow_pickle=True)  # the bomb is live: only the loader's refusal kept it quiet
    assert target.exists()
