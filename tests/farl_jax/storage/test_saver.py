"""Saves beside training: of the moment, all of them, in order, and no error lost."""

import contextlib
import functools
import gc
import logging
import resource
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.storage.checkpoint import CheckpointError, best_step, latest_step, restore, save
from farl_jax.storage.metrics import MetricsWriter, read_metrics
from farl_jax.storage.saver import Part, Saver
from farl_jax.storage.trackers import Label, TensorBoard


def small(value):
    return {"x": {"w": jnp.full(3, value, jnp.float32)}}


def quiet(line):
    raise AssertionError(line)


@contextlib.contextmanager
def full_disk(size):
    """No file of this process grows beyond `size` bytes: the system refuses as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_save_is_of_its_moment_though_the_state_is_donated_at_once(tmp_path):
    advance = jax.jit(lambda s: {"w": s["w"] + 1, "key": s["key"]}, donate_argnums=0)
    state = {"w": jnp.zeros(1000), "key": jax.random.key(5)}
    abstract = jax.eval_shape(lambda: {"x": state})
    with Saver(quiet) as saver:
        first = Part(tmp_path / "first", small(0), {})  # keeps the worker busy for a while
        saver.save(7, [first, Part(tmp_path, {"x": state}, {"task": "toy"})])
        for _ in range(50):
            state = advance(state)
        jax.block_until_ready(state)
    step, items, metadata = restore(tmp_path, abstract)
    assert step == 7 and metadata == {"task": "toy"}
    np.testing.assert_array_equal(items["x"]["w"], np.zeros(1000))
    drawn, expected = (jax.random.normal(key) for key in (items["x"]["key"], jax.random.key(5)))
    assert drawn == expected


def test_no_save_is_left_out_and_one_that_waits_says_so(tmp_path):
    said = []
    folders = [tmp_path / str(i) for i in range(4)]
    with Saver(said.append) as saver:
        for i, folder in enumerate(folders):
            saver.save(10 + i, [Part(folder, small(i), {}), Part(folder / "twin", small(-i), {})])
    assert said == [f"  waiting for the checkpoint of step {10 + i}" for i in range(3)]
    for i, folder in enumerate(folders):
        for path, value in ((folder, i), (folder / "twin", -i)):
            step, items, _ = restore(path, small(0))
            assert step == 10 + i and items["x"]["w"][0] == value


def test_an_error_of_the_worker_is_raised_by_the_next_save_or_at_the_end(tmp_path):
    (tmp_path / "file").write_text("")
    bad = [Part(tmp_path / "file" / "below", small(0), {})]
    good = [Part(tmp_path / "good", small(1), {})]
    with Saver(lambda _: None) as saver:
        saver.save(1, bad)
        with pytest.raises(CheckpointError, match="cannot save step 1"):
            saver.save(2, good)
        saver.save(3, good)
    assert latest_step(tmp_path / "good") == 3
    with pytest.raises(CheckpointError, match="cannot save step 4"), Saver(quiet) as saver:
        saver.save(4, bad)
    with (
        pytest.raises(ZeroDivisionError),
        pytest.warns(UserWarning, match="cannot save step 5"),
        Saver(quiet) as saver,
    ):
        saver.save(5, bad)
        raise ZeroDivisionError


def test_whatever_ends_the_training_its_last_save_is_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt), Saver(quiet) as saver:
        saver.save(1, [Part(tmp_path, small(1), {})])
        raise KeyboardInterrupt
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert restore(tmp_path, small(0))[0] == 1


def test_the_best_step_survives_beside_the_newest(tmp_path):
    steps = lambda: sorted(int(p.name) for p in tmp_path.iterdir())
    kept = []
    for step, score in enumerate((None, 5.0, 3.0, None, 1.0, 5.0, 2.0, None, None), 1):
        save(tmp_path, step, small(step), {}, score=score)
        kept.append((steps(), best_step(tmp_path)))
    assert kept == [
        ([1], None),
        ([1, 2], 2),
        ([2, 3], 2),
        ([2, 3, 4], 2),
        ([2, 4, 5], 2),
        ([5, 6], 6),  # as good, and later
        ([6, 7], 6),
        ([6, 7, 8], 6),
        ([6, 8, 9], 6),
    ]
    assert restore(tmp_path, small(0), step=6)[1]["x"]["w"][0] == 6.0
    save(tmp_path, 7, small(0), {}, score=0.5)  # goes on from step 6
    assert steps() == [6, 7] and best_step(tmp_path) == 6
    assert best_step(tmp_path / "absent") is None


@pytest.mark.parametrize("size", [0, 3_000, 50_000, 250_000])
def test_a_full_disk_is_told_once(tmp_path, capfd, recwarn, size):
    """Orbax's threads and tasks print nothing of their own, neither now nor when collected."""
    draw = np.random.default_rng(0)
    big = {"x": {str(i): draw.random(100_000).astype(np.float32) for i in range(20)}}
    with full_disk(size), pytest.raises(CheckpointError, match="cannot save step 2") as error:
        save(tmp_path, 2, big, {})
    assert "\n" not in str(error.value) and len(str(error.value)) < 60 + len(str(tmp_path)) + 100
    del error
    gc.collect()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "") and not list(recwarn) and not list(tmp_path.iterdir())
    hook = threading.excepthook
    save(tmp_path, 3, small(1), {})
    assert threading.excepthook is hook and not logging.getLogger("absl").disabled


def test_a_full_disk_ends_in_one_line_and_leaves_the_older_step(tmp_path):
    big = {"x": {"w": np.random.default_rng(0).random(100_000).astype(np.float32)}}
    save(tmp_path, 1, big, {})
    with (
        full_disk(50_000),
        pytest.raises(CheckpointError, match="cannot save step 2") as error,
        Saver(quiet) as saver,
    ):
        saver.save(2, [Part(tmp_path, big, {})])
    assert "\n" not in str(error.value) and "older steps are intact" in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["1"]
    np.testing.assert_array_equal(restore(tmp_path, big)[1]["x"]["w"], big["x"]["w"])
    save(tmp_path, 2, big, {})
    assert latest_step(tmp_path) == 2


@pytest.mark.timeout(60)
def test_metrics_on_a_full_disk_name_the_file_and_nothing_hangs(tmp_path):
    row = {f"metric_{i}": float(i) for i in range(30)}
    track = functools.partial(TensorBoard, Label())
    with (
        full_disk(3000),
        pytest.raises(OSError) as error,
        MetricsWriter(tmp_path, track) as writer,
    ):
        for step in range(100):
            writer.write(step, row, "online")
    assert str(tmp_path) in error.value.filename
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the half-written line
        writer = MetricsWriter(tmp_path, track)
    writer.truncate_after("online", 1)
    writer.write(2, row, "online")
    writer.close()
    assert [r["step"] for r in read_metrics(tmp_path / "metrics.jsonl")] == [0, 1, 2]
