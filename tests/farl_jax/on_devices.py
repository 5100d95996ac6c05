"""Run by test_devices.py in processes of their own, on 8 forced CPU devices or 2 x 4 of them.

The number of devices is settled when JAX starts, so pytest is started again for these.
"""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import BatchEnv, make
from experiments.phases import online
from farl_jax import devices
from farl_jax.agent import Agent, Networks
from farl_jax.methods import METHODS
from farl_jax.online.loop import PER_ENV, make_online, train
from farl_jax.online.seeds import Seeds
from farl_jax.safety.gate import Gate
from farl_jax.storage import checkpoint
from farl_jax.storage.saver import Part, Saver
from farl_jax.types import Normalizer
from tests.farl_jax.online.test_loop import ENVS, GATED, NETS, assert_identical, frozen
from tests.farl_jax.online.test_seeds import (
    SETTINGS,
    UPDATE,
    assert_alike,
    assert_same_rows,
    compilations,
    judge,
    offline,
    runs_of,
)
from tests.farl_jax.world_model.test_adaptation import demos, steps
from tests.parameters import random_parameters
from tests.toy import make_toy

_ = (demos, steps, frozen, judge, offline)  # fixtures of theirs
GATE = Gate.create(2, 0.95, 0.95)


def local(tree):
    """Whole arrays of the first local device, from arrays that lie wherever."""
    here = lambda leaf: jnp.asarray(np.asarray(leaf))
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.tree.map(
        lambda leaf: (
            jax.random.wrap_key_data(here(jax.random.key_data(leaf)))
            if is_key(leaf)
            else here(leaf)
        ),
        tree,
    )


def layouts(tree):
    """Leaf -> how it lies, but for those that hold nothing."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.sharding.spec for path, leaf in flat if leaf.size}


def advance(phase, frozen, number, updates, state=None, seeds=1, rehearsal=(0, None)):
    """Each seed's states after each update, on `number` devices, and how the last one lies."""
    together, states = Seeds(seeds), []
    with devices.use(number, seeds):
        lifted = together.lift_phase(phase)
        own, gate, keys = (
            devices.place(together.join(parts), seeds)
            for parts in (
                [frozen] * seeds,
                [GATE] * seeds,
                [jax.random.key(seed) for seed in range(seeds)],
            )
        )
        if rehearsal[1] is not None:
            joined = together.join([rehearsal[1]] * seeds)
            rehearsal = rehearsal[0], devices.place(joined, seeds)
        state = (
            lifted.init(own, keys) if state is None else devices.place_state(state, PER_ENV, seeds)
        )
        goal = int(np.max(state.env_steps)) + updates * phase.steps_per_update
        for latest, _ in train(lifted, state, own, gate, goal, rehearsal):
            whole = devices.gather(together.split(latest))
            states.append([local(one) for one in whole])
        layout = layouts(latest) if number > 1 else None
        assert compilations(lifted.collect, latest, own, gate)[1] == 0  # one program for all steps
    return states, layout


def assert_first_update_equals(one, many):
    """To 1e-5 after the first update, whole numbers exactly."""
    assert_alike(many[0][0], one[0][0], tolerance=1e-5)
    assert 0 < int(many[0][0].counters.recovered_steps) < UPDATE


@pytest.fixture(scope="module")
def phase():
    return make_online(make_toy(ENVS), NETS, GATED, METHODS["farl"])


@pytest.fixture(scope="module")
def eight(phase, frozen):
    return advance(phase, frozen, 8, 2)


@pytest.fixture(scope="module")
def one(phase, frozen, eight):
    """After `eight`: processes that compute apart in between may be late for each other."""
    return advance(phase, frozen, 1, 2)[0]


def test_eight_devices_equal_one(eight, one):
    assert jax.device_count() == 8
    states, layout = eight
    assert_first_update_equals(one, states)
    assert_alike(states[1][0], one[1][0], tolerance=2e-4)  # the policy has moved by now
    rows = {name for name in layout if name.startswith((".env_state", ".memory"))}
    for name, spec in layout.items():
        assert tuple(spec) == ((devices.ENVS,) if name in rows else ()), name


@pytest.mark.parametrize("number", [8, 1])
def test_a_checkpoint_goes_on_with_other_devices(phase, frozen, eight, one, tmp_path, number):
    if number == 1 and jax.process_count() > 1:
        pytest.skip("several processes have one mesh of all their devices")
    before, after = (one if number == 1 else eight[0])[:2]
    with devices.use(number):
        state = devices.gather(devices.place_state(before[0], PER_ENV))
        with Saver(print) as saver:
            saver.save(1, [Part(tmp_path, {"state": state}, {})])
    abstract = {"state": jax.eval_shape(phase.init, frozen, jax.random.key(0))}
    first = tmp_path.parents[1] / "0" / tmp_path.name  # the first process's
    _, items, _ = checkpoint.restore(first, abstract)
    assert_identical(items["state"], before[0])
    (again,), _ = advance(phase, frozen, 9 - number, 1, items["state"])
    assert_alike(again[0], after[0], tolerance=2e-4)


@pytest.mark.slow
def test_the_commands_loop_leaves_the_same_files_and_goes_on_with_other_devices(
    frozen, offline, judge, tmp_path
):
    """Two seeds at once, on 1 and on 8 devices (2 x 4), and cut off on 8, gone on with on 2."""
    rows = {}
    for number in (1, 8):
        runs = runs_of(tmp_path / str(number), offline, (0, 1))
        rows[number] = online.fine_tune(runs, "uni_o4", judge, num_devices=number)
    for one, many in zip(rows[1], rows[8], strict=True):
        assert_same_rows([many | {"wall_seconds": 0}], [one | {"wall_seconds": 0}])
    for seed in ("seed0", "seed1"):
        folder = tmp_path / "8" / seed / "uni_o4"
        (folder / "result.json").unlink()
        shutil.rmtree(folder / "checkpoints" / "1024")
    again = runs_of(tmp_path / "8", offline, (0, 1), resume=True)
    resumed = online.fine_tune(again, "uni_o4", judge, num_devices=2)
    for one, many in zip(rows[1], resumed, strict=True):
        assert_same_rows([many | {"wall_seconds": 0}], [one | {"wall_seconds": 0}])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "seeds"), [(8, 4), (8, 3), (4, 8)])
def test_seeds_and_environments_share_the_devices(frozen, demos, number, seeds):
    """Grids of 4 x 2, 1 x 8 and 4 x 1; the world model learns after the second update."""
    phase = make_online(make_toy(ENVS), NETS, SETTINGS, METHODS["farl"])
    assert devices.grid(number, seeds) == {4: (4, 2), 3: (1, 8), 8: (4, 1)}[seeds]
    settings = {"seeds": seeds, "rehearsal": (2, demos)}
    one, _ = advance(phase, frozen, 1, 2, **settings)
    many, layout = advance(phase, frozen, number, 2, **settings)
    for seed in range(seeds):
        assert_alike(many[0][seed], one[0][seed], tolerance=1e-5)
        assert_alike(many[1][seed], one[1][seed], tolerance=2e-4)
    shares = devices.grid(number, seeds)  # an axis of one share may be left unnamed
    for axis, name in enumerate((devices.SEEDS, devices.ENVS)):
        assert shares[axis] == 1 or layout[".env_state.obs"][axis] == name
    assert shares[0] == 1 or {spec[:1] for spec in layout.values()} == {(devices.SEEDS,)}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["native", "mjx"])
def test_a_real_task_steps_a_share_on_each_device(backend):
    config = dataclasses.replace(GATED, online=dataclasses.replace(GATED.online, rollout=4))
    env = BatchEnv(make("bounded_push", backend), 16)
    nets = Networks.create(config, env.observation_size, env.action_size)
    phase = make_online(env, nets, config, METHODS["uni_o4"])
    obs, zero = np.zeros((1, env.observation_size)), np.float32(0)
    start = Agent(
        policy=random_parameters(nets.policy, obs, seed=0),
        value=random_parameters(nets.value, obs, seed=1),
        recovery={},
        world_model={},
        normalizer=Normalizer(np.float32(obs[0]), np.float32(obs[0] + 1)),
        max_risk=zero,
    )
    start = jax.tree.map(jnp.asarray, start)
    one, _ = advance(phase, start, 1, 1)
    eight, layout = advance(phase, start, 8, 1)
    assert_alike(eight[0][0].learners, one[0][0].learners, tolerance=1e-5)
    assert tuple(layout[".env_state.physics.qpos"]) == (devices.ENVS,)
