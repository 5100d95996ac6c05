"""What a run is made of is known: nothing of another run, seed, setting or phase is taken."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from experiments.errors import UserError
from experiments.phases import offline as run_offline
from experiments.phases import online
from experiments.phases.demos import KINDS
from experiments.runs.presets import RunSettings, preset, with_settings
from experiments.runs.provenance import check, demo_sources, read_by, read_result, sources_of
from farl_jax.data import dataset
from farl_jax.data.dataset import DatasetError
from farl_jax.methods import METHODS
from farl_jax.schema import SchemaError
from farl_jax.storage import checkpoint, leaves
from tests.experiments.finished_runs import result
from tests.farl_jax.online.test_loop import frozen
from tests.farl_jax.online.test_seeds import judge, runs_of
from tests.farl_jax.test_ablations import start
from tests.farl_jax.world_model.test_adaptation import demos, steps

offline, _ = frozen, (start, demos, steps, judge)  # fixtures of theirs


def settings(seed=0, **changes):
    named = {name.replace("__", "."): value for name, value in changes.items()}
    config = with_settings(preset("smoke"), named)
    return RunSettings(preset="smoke", seed=seed, config=config)


def refused(call, *words):
    """The one line of the refusal, which has these words."""
    with pytest.raises((UserError, SchemaError, DatasetError)) as error:
        call()
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line
    return line


def write_demos(run, about=None):
    """Demonstrations of noise, as `farl demos` signs them."""
    draw, rows = np.random.default_rng(run.settings.seed), 20
    wide = {"obs": 2, "next_obs": 2, "action": 1, "intended": 1}
    about = {"settings": run.settings.to_json()} if about is None else about
    for kind in KINDS:
        data = {
            name: draw.random((rows, wide[name]) if name in wide else rows).astype(dtype)
            for name, dtype in dataset.FIELDS.items()
        }
        metadata = {"task": run.task_name, "kind": kind, **about}
        dataset.save_dataset(run.path / "demos" / f"{kind}.npz", data, metadata)


def test_a_setting_counts_where_it_is_read():
    changed = {
        "demos": dict.fromkeys(("demos",), settings(demos__failure_episodes=40)),
        "offline": {
            "bc": settings(bc__steps=51),
            "world_model": settings(world_model__steps=51),
            "demos": settings(demos__failure_episodes=40),
            "calibration": settings(safety__horizon=3, safety__max_risk=None),
            "seed": settings(1),
        },
        "risk_critic": {"own": settings(risk_critic__steps=150), "bc": settings(bc__steps=51)},
        "farl": {"online": settings(online__epochs=3), "gate": settings(safety__release=0.7)},
        "uni_o4": {"online": settings(online__epochs=3)},
    }
    passed = {
        "demos": settings(bc__steps=51, online__epochs=3, safety__horizon=3),
        "offline": settings(online__epochs=3, mppi__samples=16, adaptation__every=0),
        "risk_critic": settings(online__epochs=3),
        "farl": settings(mppi__samples=16, constraint__limit=0.5),
        "uni_o4": settings(safety__release=0.7, adaptation__every=0),
    }
    for kind, others in changed.items():
        own = read_by(settings(), kind)
        assert read_by(passed[kind], kind) == own
        assert all(read_by(other, kind) != own for other in others.values()), kind


def test_settings_and_sources_that_differ_are_named(tmp_path):
    about = {"settings": settings(1).to_json(), "sources": {"offline": "aa"}}
    look = lambda own, about, **sources: check(own, about, "offline", tmp_path, sources)
    refused(
        lambda: look(settings(), about), "seed 1", "this run has 0", str(tmp_path), "--overwrite"
    )
    refused(lambda: look(settings(1, bc__steps=51), about), "config.bc.steps 50")
    refused(lambda: look(settings(1), about, offline="bb"), "another offline")
    look(settings(1), about, offline="aa", demos="cc")
    look(settings(), {})  # an older version's
    for damaged in (None, [], 3, {"sources": 3}, {"settings": 3}, {"settings": {"protocol": 1}}):
        bad = damaged != {"settings": {"protocol": 1}}
        if bad:
            refused(lambda about=damaged: look(settings(), about), str(tmp_path))


def test_an_offline_phase_of_another_seed_is_refused(tmp_path, offline):
    one, other = runs_of(tmp_path, offline, (0, 1))
    shutil.rmtree(one.path / "offline")
    shutil.copytree(other.path / "offline", one.path / "offline")
    refused(one.offline_result, "offline", "seed 1", "this run has 0")
    refused(lambda: online.fine_tune([one], "uni_o4"), "seed 1")
    assert not (one.path / "uni_o4").exists()
    assert other.offline_result() is not None


def test_an_offline_phase_of_other_settings_is_refused_and_of_other_online_ones_taken(
    tmp_path, offline
):
    (run,) = runs_of(tmp_path, offline, (0,))
    config = dataclasses.replace(run.settings.config)
    longer = dataclasses.replace(config.bc, steps=config.bc.steps + 1)
    changed = dataclasses.replace(run.settings, config=dataclasses.replace(config, bc=longer))
    refused(dataclasses.replace(run, settings=changed).offline_result, "config.bc.steps")
    shorter = dataclasses.replace(config.online, eval_every=1)
    changed = dataclasses.replace(run.settings, config=dataclasses.replace(config, online=shorter))
    assert dataclasses.replace(run, settings=changed).offline_result() is not None


def test_demonstrations_are_of_their_kind_seed_and_settings(tmp_path, offline):
    run, other = runs_of(tmp_path, offline, (0, 1))
    for one in (run, other):
        shutil.rmtree(one.path / "offline")
        write_demos(one)
    assert run_offline.read_demos(run).keys() == set(KINDS)
    folder = run.path / "demos"
    own = (folder / "task.npz").read_bytes()
    shutil.copy(folder / "failure.npz", folder / "task.npz")
    refused(lambda: run_offline.read_demos(run), "task.npz", "kind 'task'", "got 'failure'")
    refused(lambda: run_offline.fit(run), "got 'failure'")
    shutil.copy(other.path / "demos" / "task.npz", folder / "task.npz")
    refused(lambda: run_offline.read_demos(run), "task.npz", "seed 1", "this run has 0")
    (folder / "task.npz").write_bytes(own)
    run_offline.read_demos(run)
    write_demos(run, about={})  # an older version's
    run_offline.read_demos(run)


def test_demonstrations_are_those_that_the_offline_phase_has_learnt_from(tmp_path, offline):
    (run,) = runs_of(tmp_path, offline, (0,))
    write_demos(run)
    result = run.offline_result()
    run_offline.read_demos(run)  # an older version's offline phase does not say
    sources = demo_sources(run.path / "demos")
    metadata = run_offline.run_metadata(run, "offline", sources)
    checkpoint.save(run.path / "offline", 0, {"result": result}, metadata)
    run_offline.read_demos(run)
    data, about = dataset.load_dataset(run.path / "demos" / "failure.npz")
    dataset.save_dataset(
        run.path / "demos" / "failure.npz", data | {"reward": -data["reward"]}, about
    )
    refused(lambda: run_offline.read_demos(run), "offline", "another demos/failure.npz")
    refused(run.offline_result, "offline", "another demos/failure.npz")  # of whatever method


def test_a_method_goes_on_from_its_own_offline_phase_alone(tmp_path, offline, judge):
    (run,) = runs_of(tmp_path, offline, (0,), updates=2)
    (row,) = online.fine_tune([run], "uni_o4", judge)
    path = run.path / "uni_o4" / "result.json"
    saved = json.loads(path.read_text())
    assert "made_from" not in row and saved == {**row, "made_from": saved["made_from"]}
    frozen = run.offline_result()
    assert saved["made_from"] == {
        "settings": run.settings.to_json(),
        "sources": sources_of(frozen, METHODS["uni_o4"]),
    }
    again = dataclasses.replace(run, resume=True)
    assert online.fine_tune([again], "uni_o4", judge) == [row]
    other = frozen.replace(value=jax.tree.map(lambda x: x + 1, frozen.value))
    metadata = run_offline.run_metadata(run, "offline")
    checkpoint.save(run.path / "offline", 0, {"result": other}, metadata)
    tune = lambda: online.fine_tune([again], "uni_o4", judge)
    refused(tune, "result.json", "another offline")
    path.unlink()
    refused(tune, "checkpoints", "another offline")
    checkpoint.save(run.path / "offline", 0, {"result": frozen}, metadata)
    older = {name: value for name, value in saved.items() if name != "made_from"}
    path.write_text(json.dumps(older))
    assert online.fine_tune([again], "uni_o4", judge) == [row]


def test_a_calibration_counts_for_a_gate_alone(offline):
    moved = offline.replace(max_risk=np.float32(0.5))
    for method, alike in (("uni_o4", True), ("cpo", True), ("farl", False), ("mppi", False)):
        same = sources_of(offline, METHODS[method]) == sources_of(moved, METHODS[method])
        assert same == alike, method


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, ("1 in the result",)),
        ({"task": "bounded_soccer"}, ("bounded_soccer",)),
        ({"method": "farl"}, ("result is of farl",)),
        (
            {"made_from": {"settings": settings(online__epochs=3).to_json(), "sources": {}}},
            ("online.epochs 3",),
        ),
        ({"made_from": []}, ("result.json",)),
    ],
)
def test_a_result_of_another_run_is_refused(tmp_path, changed, words):
    row = result("bounded_push", "uni_o4", 0, 5, 80.0, preset="smoke")
    path = tmp_path / "uni_o4" / "result.json"
    path.parent.mkdir()
    path.write_text(json.dumps(row))
    assert read_result(tmp_path, settings(), "uni_o4") == row
    path.write_text(json.dumps(row | changed))
    refused(lambda: read_result(tmp_path, settings(), "uni_o4"), str(path), *words)
    for text in ("3", "null", "[]"):
        path.write_text(text)
        refused(lambda: read_result(tmp_path, settings(), "uni_o4"), str(path))


def test_a_digest_is_of_every_number_type_and_name():
    tree = {"a": np.zeros((2, 3), np.float32), "b": jax.random.key(0), "c": None}
    others = [
        tree | {"a": np.zeros((3, 2), np.float32)},
        tree | {"a": np.zeros((2, 3), np.int32)},
        tree | {"a": np.full((2, 3), -0.0, np.float32)},
        tree | {"b": jax.random.key(1)},
        {"x": tree["a"], "b": tree["b"]},
    ]
    assert leaves.digest(tree) == leaves.digest({k: tree[k] for k in "cba"})
    assert len({leaves.digest(one) for one in (tree, *others)}) == 6
