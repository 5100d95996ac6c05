"""Seeds in step equal single runs, keep to themselves, and leave the files of single runs."""

import dataclasses
import io
import json
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from experiments.errors import UserError
from experiments.phases import offline as run_offline
from experiments.phases import online as run_online
from experiments.phases import together
from experiments.phases.judge import Judge
from experiments.process.machine import free_memory
from experiments.runs.presets import RunSettings
from experiments.runs.run import Run
from farl_jax.data.dataset import from_rollout
from farl_jax.methods import METHODS
from farl_jax.online.loop import make_online, train
from farl_jax.online.seeds import Seeds, group_sizes, tree_bytes
from farl_jax.safety import risk_critic
from farl_jax.safety.gate import Gate
from farl_jax.storage import checkpoint
from farl_jax.storage.metrics import read_metrics
from tests.farl_jax.online.test_loop import (
    ENVS,
    NETS,
    ROLLOUT,
    assert_alike,
    assert_identical,
    frozen,
    raw,
)
from tests.farl_jax.test_ablations import CONFIG, start
from tests.farl_jax.world_model.test_adaptation import ADAPT, demos, steps
from tests.parameters import random_parameters
from tests.toy import make_toy

SETTINGS = dataclasses.replace(
    CONFIG,
    adaptation=ADAPT,
    safety=dataclasses.replace(CONFIG.safety, control_share=0.2),
    online=dataclasses.replace(CONFIG.online, treatment="relabelled"),
)
UPDATE = ENVS * ROLLOUT
offline, _ = frozen, (start, demos, steps)  # fixtures of theirs
SLOW = [pytest.param(m, marks=pytest.mark.slow) for m in METHODS if m != "farl"]


class Inputs(NamedTuple):
    """What the runs of some seeds start from, seed by seed."""

    frozen: list
    keys: list
    gates: list
    costs: list
    demos: list


def phase_of(method):
    return make_online(make_toy(ENVS), NETS, SETTINGS, METHODS[method])


def inputs_of(method, start, demos, steps, number):
    """Every seed has another policy, key, threshold and, of another length, rehearsal."""
    policies = [random_parameters(NETS.policy, np.zeros((1, 2)), seed=s) for s in range(number)]
    gated, constrained = METHODS[method].gate, METHODS[method].constrained
    usual = 0.018 if gated == "critic" else 0.945  # in the middle of what random networks predict
    rehearsal = risk_critic.to_risk_data(from_rollout(steps)) if gated == "critic" else demos
    longer = jax.tree.map(lambda x: jnp.concatenate([x, x]) if x.ndim else x, rehearsal)
    return Inputs(
        [start.replace(policy=jax.tree.map(jnp.asarray, p)) for p in policies],
        [jax.random.key(s) for s in range(number)],
        [Gate.create(2, 0.95, usual + 0.01 * s) for s in range(number)],
        [start.value if constrained else None] * number,
        [longer if s % 2 else rehearsal for s in range(number)],
    )


def advance(phase, inputs, updates, states=None):
    """All seeds `updates` updates further, in step; by one program where there are several."""
    seeds = Seeds(len(inputs.keys))
    phase, (own, keys, gates, costs, rehearsal) = seeds.lift_phase(phase), map(seeds.join, inputs)
    state = phase.init(own, keys, costs) if states is None else seeds.join(states)
    goal = int(np.max(state.env_steps)) + updates * UPDATE
    for latest in train(phase, state, own, gates, goal, (2, rehearsal)):
        state, metrics = latest
    return seeds.split(state), seeds.split(metrics)


def only(inputs, seed):
    return Inputs(*([each[seed]] for each in inputs))


@pytest.mark.parametrize("method", ["farl", *SLOW])
def test_seeds_in_step_equal_single_runs(start, demos, steps, method, tmp_path):
    """Three updates: the critic alone, policy and critic, and one after what the gate asks learnt.

    Then one more, in step from the single runs' states, and singly from a checkpoint of the others.
    """
    phase, inputs = phase_of(method), inputs_of(method, start, demos, steps, 3)
    joint, joint_metrics = advance(phase, inputs, 3)
    singles = [advance(phase, only(inputs, s), 3) for s in range(3)]
    for s, ((single,), (metrics,)) in enumerate(singles):
        assert_alike(joint[s], single)
        assert_alike(joint_metrics[s], metrics)
        moved = raw(single.learners.actor.params)
        assert not all(np.array_equal(moved[k], v) for k, v in raw(inputs.frozen[s].policy).items())
    if METHODS[method].gated:
        assert all(0 < int(own.counters.recovered_steps) < 3 * UPDATE for own in joint)
    lives = {(float(c.return_sum), int(c.failing_steps)) for c in (own.counters for own in joint)}
    assert len(lives) == 3  # no seed is another's copy

    checkpoint.save(tmp_path, 3, {"state": joint[1]}, {})
    abstract = {"state": jax.eval_shape(lambda: singles[1][0][0])}
    _, items, _ = checkpoint.restore(tmp_path, abstract)
    assert_identical(items["state"], joint[1])
    (apart,), _ = advance(phase, only(inputs, 1), 1, [items["state"]])
    together, _ = advance(phase, inputs, 1, [own for (own,), _ in singles])
    assert_alike(together[1], apart)


def test_a_single_seed_is_left_as_it_is(start):
    one, phase = Seeds(1), phase_of("uni_o4")
    assert one.join([start]) is start and one.split(start) == [start]
    assert one.lift(phase.collect) is phase.collect
    assert one.lift_phase(phase) == phase


def compilations(function, *args):
    """What `function` gives, and how many programs XLA was asked for meanwhile."""
    events = []

    def listen(event, *_, **__):
        events.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        result = function(*args)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return result, sum("backend_compile" in event for event in events)


@pytest.mark.slow  # compiles the whole gated loop twice
def test_as_many_programs_for_six_seeds_as_for_four_and_states_are_donated(start, demos, steps):
    counts = []
    for number in (4, 6):
        inputs, seeds = inputs_of("farl", start, demos, steps, number), Seeds(number)
        phase, (own, keys, gates, _, rehearsal) = (
            seeds.lift_phase(phase_of("farl")),
            map(seeds.join, inputs),
        )
        begin = phase.init(own, keys)

        def update(state, phase=phase, own=own, gates=gates, rehearsal=rehearsal):
            goal = int(np.max(state.env_steps)) + UPDATE
            ((state, _),) = train(phase, state, own, gates, goal, (1, rehearsal))
            return state

        first, count = compilations(update, begin)
        assert all(x.is_deleted() for x in jax.tree.leaves(begin.learners))
        assert begin.env_state.obs.is_deleted()
        assert not any(x.is_deleted() for x in jax.tree.leaves(own))
        assert compilations(update, first)[1] == 0
        counts.append(count)
    assert counts[0] == counts[1] > 0


def test_what_is_not_a_number_stays_in_its_seed(start, demos, steps):
    phase, inputs = phase_of("uni_o4"), inputs_of("uni_o4", start, demos, steps, 3)
    sound, _ = advance(phase, inputs, 2)
    broken = jax.tree.map(lambda x: x * jnp.nan, inputs.frozen[1].value)
    inputs.frozen[1] = inputs.frozen[1].replace(value=broken)
    hurt, metrics = advance(phase, inputs, 2)
    assert not np.isfinite(metrics[1]["value_loss"])
    for s in (0, 2):
        assert_identical(hurt[s], sound[s])
        assert np.isfinite(metrics[s]["value_loss"])


def test_groups_are_few_even_and_fit():
    each = lambda size: lambda seeds: seeds * size
    assert group_sizes(8, each(100), None) == [8]
    assert group_sizes(8, each(100), 1000) == [8]  # 800 bytes may be filled
    assert group_sizes(8, each(101), 1000) == [4, 4]
    assert group_sizes(8, each(250), 1000) == [3, 3, 2]
    assert group_sizes(3, each(10_000), 1000) == [1, 1, 1]
    assert group_sizes(1, each(10), 0) == [1]
    assert group_sizes(8, lambda seeds: 400 + 100 * seeds, 1000) == [4, 4]
    assert tree_bytes({"a": jnp.zeros((3, 2)), "b": jax.random.key(0)}) == 24 + 8
    assert free_memory() is None or free_memory() > 1e6


# ---- the commands' loop, files and all


class ToyRun(Run):
    """A run on the toy."""

    def env(self, num_envs):
        return make_toy(num_envs)


@pytest.fixture(scope="module")
def judge(tmp_path_factory, offline):
    run = runs_of(tmp_path_factory.mktemp("judge"), offline, (0,))[0]
    return Judge(run, run.settings.config)


def runs_of(root, offline, numbers, *, resume=False, updates=4, kind=ToyRun, **other):
    """Runs with an offline checkpoint each; `other` are settings of the online phase."""
    changes = {"env_steps": updates * UPDATE, "eval_every": 2 * UPDATE, "checkpoint_every": UPDATE}
    changes |= {"eval_episodes": 8, "final_episodes": 16}
    online = dataclasses.replace(SETTINGS.online, **changes | other)
    config = dataclasses.replace(SETTINGS, online=online)
    runs = []
    for seed in numbers:
        settings = RunSettings("cliff_walker", "smoke", seed, None, config)
        run = kind(root / f"seed{seed}", settings, resume, Console(file=io.StringIO()))
        if not resume:
            policy = random_parameters(NETS.policy, np.zeros((1, 2)), seed=seed)
            result = offline.replace(policy=jax.tree.map(jnp.asarray, policy))
            metadata = run_offline.run_metadata(run, "offline")
            checkpoint.save(run.path / "offline", 0, {"result": result}, metadata)
        runs.append(run)
    return runs


def rows_of(run):
    rows = read_metrics(run.path / "uni_o4" / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k != "wall_seconds"} for row in rows]


def assert_same_rows(left, right):
    assert [row.keys() for row in left] == [row.keys() for row in right]
    for a, b in zip(left, right, strict=True):
        for name, value in a.items():
            known = isinstance(value, str | dict) or value is None
            assert value == (b[name] if known else pytest.approx(b[name], rel=1e-3, abs=1e-4)), name


@pytest.mark.slow
def test_where_memory_is_short_the_compiled_programs_split_the_seeds(
    tmp_path, offline, judge, monkeypatch
):
    runs = runs_of(tmp_path, offline, (0, 1, 2, 3))
    phase, spec = phase_of("uni_o4"), METHODS["uni_o4"]
    free = iter([None, 10**12, 10**5])
    monkeypatch.setattr(together, "free_memory", lambda devices: next(free))
    assert len(together.groups(runs, spec, phase, judge, 1)) == 1  # unknown: all at once
    assert len(together.groups(runs, spec, phase, judge, 1)) == 1
    assert "about" in runs[0].console.file.getvalue()
    assert "compiled" not in runs[0].console.file.getvalue()
    assert [len(own) for own in together.groups(runs, spec, phase, judge, 1)] == [1, 1, 1, 1]
    assert "by the compiled programs" in runs[0].console.file.getvalue()


@pytest.mark.slow
def test_each_seed_has_the_files_of_a_single_run_and_any_may_go_on_alone(tmp_path, offline, judge):
    together = run_online.fine_tune(runs_of(tmp_path / "a", offline, (0, 1)), "uni_o4", judge)
    alone = runs_of(tmp_path / "b", offline, (0, 1))
    singly = [run_online.fine_tune([run], "uni_o4", judge)[0] for run in alone]
    for a, b, run in zip(together, singly, alone, strict=True):
        twin = tmp_path / "a" / run.path.name
        assert_same_rows([a | {"wall_seconds": 0}], [b | {"wall_seconds": 0}])
        written = json.loads((twin / "uni_o4" / "result.json").read_text())
        assert {**a, "made_from": written["made_from"]} == written
        assert_same_rows(rows_of(dataclasses.replace(run, path=twin)), rows_of(run))
        folders = [p / "uni_o4" / "checkpoints" for p in (twin, run.path)]
        kept = [{x.name for x in f.iterdir()} for f in folders]
        assert kept[0] == kept[1] and {"768", "1024"} <= kept[0] <= {"512", "768", "1024"}

    # seed 1 goes on from step 768, as if cut off there: alone, then with what is finished left out
    for root in (tmp_path / "a", tmp_path / "b"):
        (root / "seed1" / "uni_o4" / "result.json").unlink()
        checkpoint_folder = root / "seed1" / "uni_o4" / "checkpoints"
        (checkpoint_folder / "1024").rename(root / "later")
    again = runs_of(tmp_path / "b", offline, (0, 1), resume=True)
    whole = runs_of(tmp_path / "a", offline, (0, 1), resume=True)
    for runs in (again[1:], whole):
        result = run_online.fine_tune(runs, "uni_o4", judge)[-1]
        assert_same_rows([result | {"wall_seconds": 0}], [singly[1] | {"wall_seconds": 0}])

    # two seeds at different steps do not go on in step
    (tmp_path / "a" / "seed0" / "uni_o4" / "checkpoints" / "1024").rename(tmp_path / "gone")
    for seed in (0, 1):
        (tmp_path / "a" / f"seed{seed}" / "uni_o4" / "result.json").unlink()
    with pytest.raises(UserError, match=r"seed0 at 768, seed1 at 1,024.*without --together"):
        run_online.fine_tune(whole, "uni_o4", judge)


def test_a_seed_in_trouble_stops_and_the_others_finish(tmp_path, offline, judge):
    runs = runs_of(tmp_path, offline, (0, 1))
    broken = runs[1].offline_result()
    broken = broken.replace(value=jax.tree.map(lambda x: x * jnp.nan, broken.value))
    metadata = run_offline.run_metadata(runs[1], "offline")
    checkpoint.save(runs[1].path / "offline", 0, {"result": broken}, metadata)
    with pytest.raises(UserError, match=r"seed1: step 256: .* is not finite"):
        run_online.fine_tune(runs, "uni_o4", judge)
    assert json.loads((runs[0].path / "uni_o4" / "result.json").read_text())["seed"] == 0
    assert [row["step"] for row in rows_of(runs[0])] == [0, 256, 512, 768, 1024]
    assert not (runs[1].path / "uni_o4" / "result.json").exists()
    assert [row["step"] for row in rows_of(runs[1])] == [0]
