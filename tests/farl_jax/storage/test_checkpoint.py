"""Checkpoints: exact round trips, and one clear line for everything that can be wrong."""

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import struct

from farl_jax.storage import checkpoint, json_files, manifest
from farl_jax.storage.checkpoint import CheckpointError, latest_step, read_metadata, restore, save

METADATA = {"task": "bounded_push", "kind": "offline", "protocol": 1, "config": {"lr": 0.1}}


class Pair(NamedTuple):
    left: jax.Array
    right: None


@struct.dataclass
class Learner:
    params: dict
    opt_state: optax.OptState
    pair: Pair
    key: jax.Array
    empty: jax.Array
    count: int
    name: str = struct.field(pytree_node=False, default="learner")


def learner(seed: int) -> Learner:
    params = {"dense": {"kernel": seed + jnp.arange(6.0).reshape(2, 3)}, "a/b": jnp.ones(2, bool)}
    half = jnp.full(3, seed, jnp.bfloat16)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    return Learner(
        params, optimizer.init(params), Pair(half, None), jax.random.key(seed), jnp.ones((0, 3)), 3
    )


def items(seed: int) -> dict:
    keys = jax.random.split(jax.random.key(seed, impl="rbg"), 2)
    return {"learner": learner(seed), "keys": keys, "nothing": {}, "scalar": jnp.int32(seed)}


ABSTRACT = jax.eval_shape(lambda: items(0))


def raw(tree):
    return [
        np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
        for x in map(jnp.asarray, jax.tree.leaves(tree))
    ]


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for a, b in zip(raw(left), raw(right), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def one_line(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 600
    return text


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def sign(step_folder: Path, body: dict) -> None:
    """Write `body` as the manifest, with the checksums that fit."""
    manifest.write(step_folder, {k: v for k, v in body.items() if k != "crc32"})


def snapshot(folder: Path) -> dict:
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pristine")
    save(folder, 10, items(1), METADATA)
    save(folder, 20, items(2), METADATA)
    return folder


@pytest.fixture
def saved(pristine, tmp_path) -> Path:
    """A copy of steps 10 and 20 to spoil."""
    return shutil.copytree(pristine, tmp_path / "checkpoints")


def test_round_trip_keeps_values_types_keys_and_metadata(saved):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step, loaded, metadata = restore(saved, ABSTRACT)
    assert step == 20 and metadata == METADATA
    assert_same(loaded, items(2))
    assert isinstance(loaded["learner"].opt_state[1][0], optax.ScaleByAdamState)
    assert jax.random.key_impl(loaded["keys"]) == jax.random.key_impl(items(2)["keys"])
    np.testing.assert_array_equal(
        jax.random.normal(loaded["learner"].key, (3,)), jax.random.normal(jax.random.key(2), (3,))
    )


def test_one_item_of_an_older_step(saved):
    step, loaded, _ = restore(saved, {"learner": ABSTRACT["learner"]}, step=10)
    assert step == 10 and set(loaded) == {"learner"}
    assert_same(loaded["learner"], learner(1))


def test_keeps_the_last_steps_and_replaces_one_of_the_same_number(tmp_path):
    small = lambda value: {"x": {"w": jnp.full(3, value, jnp.float32)}}
    for step in (1, 2, 3):
        save(tmp_path, step, small(step), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]
    save(tmp_path, 3, small(9), {})
    np.testing.assert_array_equal(restore(tmp_path, small(0))[1]["x"]["w"], np.full(3, 9.0))
    flip(tmp_path / "3" / "metadata.json")
    save(tmp_path, 4, small(4), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3", "4"]  # 3 does not count
    save(tmp_path, 3, small(3), {}, keep=1)  # goes on from an earlier step
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3"]
    (tmp_path / "5.incoming").mkdir()  # a save that was killed
    assert latest_step(tmp_path) == 3
    save(tmp_path, 5, small(5), {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "5"]


def test_every_damaged_file_is_named_and_an_older_step_is_taken(saved):
    files = [path for path in (saved / "20").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 5
    for path in files:
        good = path.read_bytes()
        for spoil in (flip, lambda p: p.write_bytes(p.read_bytes()[:-1]), Path.unlink):
            spoil(path)
            before = snapshot(saved)
            with pytest.raises(CheckpointError, match="choose another step") as error:
                restore(saved, ABSTRACT, step=20)
            assert str(path) in one_line(error)
            if spoil is flip:
                with pytest.warns(UserWarning, match="skipped a damaged checkpoint") as caught:
                    step, loaded, _ = restore(saved, {"scalar": ABSTRACT["scalar"]})
                assert step == 10 and loaded["scalar"] == 1
                assert str(path) in str(caught[0].message)
            assert snapshot(saved) == before
            path.write_bytes(good)
    assert restore(saved, ABSTRACT)[0] == 20


def test_damage_that_only_orbax_sees(saved):
    data = next(p for p in (saved / "20/orbax/learner/d").iterdir())
    data.write_bytes(data.read_bytes()[:-30])
    sign(saved / "20", json.loads((saved / "20/metadata.json").read_text()))
    with pytest.raises(CheckpointError, match="Orbax cannot load it") as error:
        restore(saved, {"learner": ABSTRACT["learner"]}, step=20)
    one_line(error)
    with pytest.warns(UserWarning, match="skipped"):
        assert restore(saved, {"learner": ABSTRACT["learner"]})[0] == 10


def test_all_damaged_empty_missing(saved, tmp_path):
    for step in (10, 20):
        (saved / str(step) / "metadata.json").write_text("{")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(CheckpointError, match="every checkpoint is damaged") as error,
    ):
        restore(saved, ABSTRACT)
    one_line(error)
    with pytest.raises(CheckpointError, match="no such checkpoint folder"):
        restore(tmp_path / "absent", ABSTRACT)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        read_metadata(tmp_path / "empty")
    assert latest_step(tmp_path / "absent") is None
    with pytest.raises(CheckpointError, match="has no step 7; it has 10, 20"):
        restore(saved, ABSTRACT, step=7)
    (saved / "99").mkdir()
    assert latest_step(saved) == 99


def test_mismatches_are_named_and_never_skipped(saved):
    def refused(match, abstract=ABSTRACT, **options):
        with pytest.raises(CheckpointError, match=match) as error:
            restore(saved, abstract, **options)
        one_line(error)

    refused(
        r"task must be 'bounded_soccer' as in this run; got 'bounded_push'",
        expect={"task": "bounded_soccer"},
    )
    refused("has no horizon in its metadata", expect={"horizon": 5})
    assert restore(saved, ABSTRACT, expect={"config": {"lr": 0.1}, "protocol": 1})[0] == 20
    refused("has no item 'critic'; it has keys, learner, nothing, scalar", {"critic": {}})
    wide = jax.eval_shape(lambda: {"scalar": jnp.zeros(2, jnp.int32)})
    refused(r"item 'scalar', leaf '' must be int32\[2\]; got int32\[\]", wide)
    refused(r"must be float32\[\]; got", jax.eval_shape(lambda: {"scalar": jnp.float32(0)}))
    refused(
        "other impl|key<fry>.*key<rbg>",
        {"keys": jax.eval_shape(lambda: jax.random.split(jax.random.key(0)))},
    )
    grown = learner(0).replace(params={"dense": {"bias": jnp.zeros(3)}})
    refused("lacks leaf 'params/dense/bias'", {"learner": grown})
    refused(
        "has leaf 'params/a/b', unknown to this run",
        {"learner": learner(0).replace(params={"dense": learner(0).params["dense"]})},
    )


def spoiled_manifests():
    """(what the line says, body -> body): every field gone, of another type, or absurd."""
    for name in ("format", "step", "metadata", "items", "files"):
        yield name, lambda body, name=name: {k: v for k, v in body.items() if k != name}
        for value in (None, [], "x", -1, 2.5, True, [[1]], {"x": 3}, {"x": [1, 2, 3]}):
            if name != "metadata" or not isinstance(value, dict):
                yield name, lambda body, name=name, value=value: body | {name: value}
    yield "score", lambda body: body | {"score": "high"}
    yield "not JSON", lambda body: body | {"score": float("inf")}
    yield "score", lambda body: body | {"score": 10**400}
    yield "of step 19", lambda body: body | {"step": 19}
    yield "items", lambda body: body | {"items": {"learner": {"w": 3}}}
    yield "files", lambda body: body | {"files": {"x": [-1, 2]}}


def test_a_manifest_is_complete_and_typed_whatever_its_checksum_says(saved):
    path = saved / "20" / "metadata.json"
    body = {k: v for k, v in json.loads(path.read_text()).items() if k != "crc32"}
    for word, spoil in spoiled_manifests():
        bad = spoil(body)
        path.write_text(json.dumps(bad | {"crc32": manifest.body_crc(bad)}))
        for read in (lambda: restore(saved, ABSTRACT, step=20), lambda: read_metadata(saved, 20)):
            with pytest.raises(CheckpointError) as error:
                read()
            assert str(path) in one_line(error) and word in str(error.value), bad.keys()
        with pytest.warns(UserWarning, match="skipped a damaged checkpoint"):
            assert restore(saved, {"scalar": ABSTRACT["scalar"]})[0] == 10


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "1" * 6000, "null", "3", "[]", '"x"', '{"crc32": null}', ""]
)
def test_json_that_is_no_manifest_is_damage(saved, text, monkeypatch):
    (saved / "20" / "metadata.json").write_text(text)
    with pytest.raises(CheckpointError, match="damaged") as error:
        read_metadata(saved, step=20)
    one_line(error)
    monkeypatch.setattr(json_files, "MAX_BYTES", 10)
    with pytest.raises(CheckpointError, match="too many"):
        read_metadata(saved, step=10)


def test_an_older_step_under_a_newer_number_is_not_taken_for_it(saved):
    shutil.copytree(saved / "20", saved / "30")
    with pytest.warns(UserWarning, match="of step 20, but in the folder of step 30"):
        assert restore(saved, ABSTRACT)[0] == 20
    (saved / "20").rename(saved / "020")  # no name that a save gives
    with pytest.raises(CheckpointError, match="has no step 20"):
        restore(saved, ABSTRACT, step=20)


NASTY = ("lab [1]", "a*b?", "[a-z]*", "back\\slash", "$HOME", "{x}", "~", "--x", "new\nline", "gs:")


@pytest.mark.parametrize("name", [*NASTY, "%41", "a b", "日本", "s3:", "..x", "'\"", "\\[x\\]"])
def test_a_path_is_a_name_and_no_pattern(tmp_path, name, monkeypatch):
    (tmp_path / name).mkdir()
    small = lambda value: {"x": {"w": jnp.full(3, value, jnp.float32)}}
    for step, folder in enumerate((tmp_path / name, Path(name)), 1):
        monkeypatch.chdir(tmp_path)
        save(folder, step, small(step), {"step": step})
        found, loaded, metadata = restore(folder, small(0))
        assert found == step and metadata == {"step": step} and loaded["x"]["w"][0] == step
    assert sorted(p.name for p in (tmp_path / name).iterdir()) == ["1", "2"]


@pytest.mark.parametrize("wrong", ["other", "missing"])
def test_what_reads_back_otherwise_is_not_called_saved(saved, monkeypatch, wrong):
    real, before = checkpoint._read_items, snapshot(saved)

    def lying(folder, like):
        loaded = real(folder, like)
        if wrong == "missing":
            raise FileNotFoundError(2, "No such file", "d")
        return loaded | {"scalar": {"": np.int32(4)}}

    monkeypatch.setattr(checkpoint, "_read_items", lying)
    with pytest.raises(CheckpointError, match="cannot save step 30") as error:
        save(saved, 30, items(3), METADATA)
    assert ("scalar" in one_line(error)) == (wrong == "other")
    assert snapshot(saved) == before


def test_a_newer_format_is_refused(saved):
    body = json.loads((saved / "20/metadata.json").read_text())
    sign(saved / "20", body | {"format": 2})
    with pytest.raises(CheckpointError, match="format must be 1; got 2"):
        restore(saved, ABSTRACT)


def test_read_metadata(saved):
    assert read_metadata(saved) == METADATA
    assert read_metadata(saved, step=10) == METADATA
    flip(saved / "20" / "metadata.json")
    assert read_metadata(saved) == METADATA  # of step 10
    with pytest.raises(CheckpointError, match=r"20/metadata.json"):
        read_metadata(saved, step=20)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        ({"x": {"w": "text"}}, "item 'x', leaf 'w': str is not an array"),
        ({"x": {"w": np.zeros(2)}}, "JAX does not keep float64"),
        ({"x": {"a/b": 1, "a": {"b": 2}}}, "two leaves have this path"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, bad, match):
    with pytest.raises(CheckpointError, match=match):
        save(tmp_path, 1, bad, {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(CheckpointError, match="metadata is not JSON"):
        save(tmp_path, 1, {"x": {"w": 1}}, {"loss": float("nan")})


def test_a_full_disk_leaves_the_older_step(saved, monkeypatch):
    before = snapshot(saved)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest, "write", full)
    with pytest.raises(CheckpointError, match=r"cannot save step 30 .*No space left") as error:
        save(saved, 30, items(3), METADATA)
    one_line(error)
    assert snapshot(saved) == before


def test_a_checkpoint_of_another_device_loads(tmp_path):
    code = f"""
import jax, jax.numpy as jnp
from pathlib import Path
from farl_jax.storage.checkpoint import save
with jax.default_device(jax.devices()[1]):
    state = {{"w": jnp.arange(4.0), "key": jax.random.key(5)}}
assert state["w"].device.id == 1
save(Path({str(tmp_path)!r}), 1, {{"x": state}}, {{}})
"""
    flags = "--xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=100)
    like = jax.eval_shape(lambda: {"x": {"w": jnp.zeros(4), "key": jax.random.key(0)}})
    _, loaded, _ = restore(tmp_path, like)
    np.testing.assert_array_equal(loaded["x"]["w"], np.arange(4.0))
    assert loaded["x"]["w"].device == jax.devices()[0]
    assert_same(loaded["x"]["key"], jax.random.key(5))


def test_what_was_restored_runs_in_the_program_of_what_was_saved(tmp_path):
    state = {"w": jnp.arange(4.0), "key": jax.random.key(5)}
    program = jax.jit(lambda s: s["w"] + jax.random.normal(s["key"]))
    expected = program(state)
    save(tmp_path, 1, {"x": state}, {})
    _, loaded, _ = restore(tmp_path, jax.eval_shape(lambda: {"x": state}))
    np.testing.assert_array_equal(program(loaded["x"]), expected)
    assert program._cache_size() == 1
