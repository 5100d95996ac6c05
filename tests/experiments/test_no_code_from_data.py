"""Nothing that is read from a file runs code: bombs in every format that a stranger could send."""

import json
import os
import pickle
import shutil
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.cli import main
from experiments.errors import UserError
from experiments.runs.presets import RunSettings
from farl_jax.data.dataset import DatasetError, load_dataset, save_dataset
from farl_jax.schema import SchemaError
from farl_jax.storage import checkpoint, manifest
from farl_jax.storage.checkpoint import CheckpointError
from farl_jax.storage.json_files import read
from farl_jax.storage.metrics import read_metrics
from tests.experiments.finished_runs import result, write_run
from tests.farl_jax.data.test_dataset import HEADER, Bomb, make, rewrite


@pytest.fixture
def target(tmp_path):
    """The folder that every bomb would make; none may by the end."""
    path = tmp_path / "executed"
    yield path
    assert not path.exists()


@pytest.fixture
def module(tmp_path, target, monkeypatch):
    """The name of a module whose import would go off."""
    code = f"import os\nos.mkdir({str(target)!r})\nclass Bomb: ...\n"
    (tmp_path / "stranger.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "stranger"
    assert "stranger" not in sys.modules


def texts(target):
    """Code as several notations would have it, as text."""
    call = f"os.mkdir({str(target)!r})"
    return (
        f"!!python/object/apply:os.mkdir [{str(target)!r}]\n",
        f"--- !!python/object/new:os.mkdir\nargs: [{target}]\n",
        f"__import__('os').mkdir({str(target)!r})\n",
        json.dumps({"__reduce__": ["os.mkdir", [str(target)]], "py/reduce": call}),
        json.dumps({"protocol": 1, "task": f"{{{{{call}}}}}", "preset": f"${{{call}}}"}),
        f"cos\nmkdir\n(V{target}\ntR.",  # a pickle that is text
    )


def test_the_bombs_are_live(tmp_path):
    live = tmp_path / "live"
    pickle.loads(pickle.dumps(Bomb(live)))
    live.rmdir()
    pickle.loads(texts(live)[-1].encode())
    assert live.is_dir()


@pytest.mark.parametrize("name", ["metadata", "obs", "more"])
def test_a_dataset(tmp_path, target, name):
    path = tmp_path / "task.npz"
    save_dataset(path, make([2, 3]), HEADER)
    rewrite(path, **{name: np.array([Bomb(target)] * 5, dtype=object)})
    with pytest.raises(DatasetError, match="damaged"):
        load_dataset(path)
    np.savez(path, **{name: np.array(Bomb(target), dtype=object)})
    with pytest.raises(DatasetError, match="damaged"):
        load_dataset(path)


def sign(folder):
    """Make a checkpoint's manifest fit its files, as whoever spoiled them could."""
    path = folder / "metadata.json"
    body = json.loads(path.read_text())
    del body["crc32"]
    manifest.write(folder, body)


def test_every_file_of_a_checkpoint(tmp_path, target, module):
    """One after the other becomes a pickle, and, where it is JSON, names a module everywhere."""
    items = {"state": {"w": jnp.ones((2, 3)), "key": jax.random.key(0)}}
    abstract = jax.eval_shape(lambda: items)
    good = tmp_path / "good"
    checkpoint.save(good, 1, items, {"task": "toy"})
    files = [p for p in (good / "1").rglob("*") if p.is_file() and p.name != manifest.MANIFEST]
    assert len(files) > 5
    spoiled = 0
    for path in files:
        for text in (pickle.dumps(Bomb(target)), _renamed(path.read_bytes(), module)):
            if text is None:
                continue
            folder = tmp_path / "bad"
            shutil.copytree(good, folder)
            (folder / path.relative_to(good)).write_bytes(text)
            sign(folder / "1")
            try:
                _, loaded, _ = checkpoint.restore(folder, abstract, step=1)
                np.testing.assert_array_equal(loaded["state"]["w"], 1.0)  # the file was not needed
            except CheckpointError as error:
                assert "\n" not in str(error)
                spoiled += 1
            shutil.rmtree(folder)
    assert spoiled > 2


def _renamed(content, module):
    """JSON in which every text is the module's class; None where it is no JSON."""

    def rename(value):
        if isinstance(value, dict):
            return {key: rename(one) for key, one in value.items()}
        if isinstance(value, list):
            return [rename(one) for one in value]
        return f"{module}.Bomb" if isinstance(value, str) else value

    try:
        return json.dumps(rename(json.loads(content))).encode()
    except ValueError:
        return None


def test_a_manifest(tmp_path, target):
    folder = tmp_path / "1"
    folder.mkdir()
    for text in (*texts(target), pickle.dumps(Bomb(target))):
        content = text if isinstance(text, bytes) else text.encode()
        (folder / manifest.MANIFEST).write_bytes(content)
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.read_metadata(tmp_path, step=1)


def test_settings_rows_and_metrics(tmp_path, target):
    path = tmp_path / "file"
    for text in texts(target):
        path.write_text(text)
        if '"protocol"' in text:
            assert RunSettings.from_json(read(path, Any)).preset.startswith("${")  # mere text
        else:
            with pytest.raises((UserError, SchemaError)):
                RunSettings.from_json(read(path, Any))
        path.write_text(text.replace("\n", " ") + "\n" + '{"phase": "online", "step": 1}\n')
        with pytest.raises(ValueError, match="line 1"):
            read_metrics(path)
    path.write_bytes(pickle.dumps(Bomb(target)))
    with pytest.raises(SchemaError):
        read(path, Any)


def test_a_runs_folder_imports_no_task_that_was_not_named_again(tmp_path, target, module, capsys):
    row = result("bounded_push", "farl", 0, 1, 50.0)
    folder = write_run(tmp_path / "run" / "seed0", row).parent
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"task": f"{module}:Bomb"}))
    before = sorted(os.listdir(folder))
    for words in (["online"], ["evaluate"], ["render"], ["diagnose"], ["sweep", "horizon"]):
        for named in ([], ["--task", "other:Bomb"]):
            assert main([*words, str(folder), *named]) == 2
            assert f"--task {module}:Bomb" in (line := capsys.readouterr().err)
            assert len(line.strip().splitlines()) == 1
    assert sorted(os.listdir(folder)) == before


def test_a_report_of_a_strangers_runs(tmp_path, target, module):
    row = result("bounded_push", "farl", 0, 1, 50.0) | {"task": f"{module}:Bomb"}
    write_run(tmp_path / "runs" / "seed0", row)
    for name, text in zip(("sweep.jsonl", "horizon.json"), texts(target)[::-1], strict=False):
        (tmp_path / "runs" / name).write_text(text)
    main(["report", str(tmp_path / "runs"), "-o", str(tmp_path / "report")])
