"""Broken numbers: one environment's are borne and counted, a learner's stop its seed unsaved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import BatchEnv
from experiments.errors import UserError
from experiments.phases import faults, online
from experiments.phases.judge import Judge
from experiments.runs.run import Run
from farl_jax.methods import METHODS
from farl_jax.online.loop import make_online, sound
from farl_jax.storage import checkpoint
from farl_jax.storage.saver import Saver
from tests.farl_jax.online.test_loop import ENVS, NETS, frozen, gate
from tests.farl_jax.online.test_seeds import (
    SETTINGS,
    UPDATE,
    ToyRun,
    judge,
    phase_of,
    rows_of,
    runs_of,
)
from tests.farl_jax.test_ablations import start
from tests.farl_jax.world_model.test_adaptation import demos, steps
from tests.toy import CliffWalker

offline, _ = frozen, (start, demos, steps, judge)  # fixtures of theirs


class Brittle(CliffWalker):
    """Its physics is not a number beyond 1.1; handled as RobotEnv handles it."""

    def step(self, state, action):
        moved = super().step(state, action)
        good = moved.physics <= 1.1
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state)
        return kept.replace(
            truncated=moved.truncated | ~good, diverged=~good, step_count=moved.step_count
        )


class BrittleRun(Run):
    """A run on it."""

    def env(self, num_envs):
        return BatchEnv(Brittle(), num_envs)


class WarpRun(Run):
    """A run that calls itself one of MuJoCo Warp."""

    def env(self, num_envs):
        env = BatchEnv(CliffWalker(), num_envs)
        env.backend = "warp"
        return env


def test_few_failing_simulations_are_borne_and_many_are_not(tmp_path, offline):
    (run,) = runs_of(tmp_path, offline, (0,))
    row = {"diverged": 0.0, "episodes": 5.0, "kl": 0.1}
    fault = lambda **changed: faults.fault_of(run, row | changed, True)
    assert fault() is None
    assert fault(diverged=10.0) is None and fault(diverged=20.0, episodes=2000.0) is None
    said = fault(diverged=21.0, episodes=2000.0)
    assert "diverged in 21 of 2000 episodes" in said and "max_diverged (0.01)" in said
    (warp,) = runs_of(tmp_path / "warp", offline, (0,), kind=WarpRun)
    assert faults.fault_of(warp, row, True) is None
    assert "contact buffer of MuJoCo Warp" in faults.fault_of(warp, row | {"diverged": 1.0}, True)


def test_what_is_not_finite_is_named(tmp_path, offline):
    (run,) = runs_of(tmp_path, offline, (0,))
    row = {"diverged": 0.0, "kl": float("nan")}
    assert faults.fault_of(run, row, True).startswith("kl is not finite")
    assert faults.fault_of(run, {"diverged": 0.0}, False).startswith("a network parameter is not")
    with Saver(print) as saver, pytest.raises(UserError, match="there is no online checkpoint yet"):
        faults.note([run], "uni_o4", [row], [True], 256, saver, {})


@pytest.mark.parametrize("method", ["farl", "simple_critic", "cpo"])
def test_a_state_is_sound_until_one_of_its_parameters_is_not(method, start):
    value = start.value if METHODS[method].constrained else None
    state = phase_of(method).init(start, jax.random.key(0), value)
    assert sound(state)
    leaves, structure = jax.tree.flatten(state.learners.critic)
    for i, leaf in enumerate(leaves):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            bad = jax.tree.unflatten(structure, [*leaves[:i], leaf * jnp.nan, *leaves[i + 1 :]])
            assert not sound(state.replace(learners=state.learners.replace(critic=bad)))
            break


def test_a_failing_simulation_stays_in_its_environment(offline):
    """From one state, with and without a broken row 3: all other rows are the same to the bit."""
    env = BatchEnv(Brittle(), ENVS)
    phase = make_online(env, NETS, SETTINGS, METHODS["uni_o4"])
    state, other = (phase.init(offline, jax.random.key(1)) for _ in range(2))
    broken = other.env_state.replace(physics=other.env_state.physics.at[3].set(1.5))
    hurt, seen = phase.collect(other.replace(env_state=broken), offline, gate(np.inf))
    _, clean = phase.collect(state, offline, gate(np.inf))
    assert seen.diverged[0, 3] and seen.truncated[0, 3] and not clean.diverged[0].any()
    for left, right in ((seen.obs, clean.obs), (seen.reward, clean.reward)):
        others = np.arange(ENVS) != 3
        np.testing.assert_array_equal(left[:, others], right[:, others])
    assert seen.step_count[1, 3] == 1  # it started anew
    assert int(hurt.counters.diverged) == seen.diverged.sum() >= 1
    assert all(np.isfinite(leaf).all() for leaf in (seen.obs, seen.next_obs, seen.reward))
    hurt, metrics = phase.update(hurt, offline, seen)
    assert sound(hurt) and np.isfinite(metrics["value_loss"])


def test_a_run_counts_and_reports_what_diverged(tmp_path, offline):
    (run,) = runs_of(tmp_path / "a", offline, (0,), kind=BrittleRun, max_diverged=1.0)
    own = Judge(run, run.settings.config)
    (result,) = online.fine_tune([run], "uni_o4", own)
    assert result["diverged"] == rows_of(run)[-1]["diverged"] > faults.FEW
    assert f"diverged {result['diverged']}" in run.console.file.getvalue()


def test_a_learner_that_breaks_stops_with_its_last_good_checkpoint_named(tmp_path, offline, judge):
    """The actor rests for one update; the step of the next makes its parameters infinite."""
    (run,) = runs_of(tmp_path, offline, (0,), updates=3, actor_learning_rate=3e38)
    with pytest.raises(UserError) as error:
        online.fine_tune([run], "uni_o4", judge)
    said = str(error.value)
    assert "\n" not in said and "not finite" in said and said.startswith(f"step {2 * UPDATE}: ")
    assert f"checkpoint {UPDATE} is intact; --resume continues from it" in said
    folder = run.path / "uni_o4" / "checkpoints"
    assert [p.name for p in folder.iterdir()] == [str(UPDATE)]
    abstract = jax.eval_shape(phase_of("uni_o4").init, run.offline_result(), jax.random.key(0))
    _, items, _ = checkpoint.restore(folder, {"state": abstract})
    assert sound(items["state"])
    assert not (run.path / "uni_o4" / "result.json").exists()
    assert [row["step"] for row in rows_of(run)] == [0, UPDATE]
    assert isinstance(run, ToyRun)
