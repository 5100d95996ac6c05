"""`farl tasks`: rates, takeovers and margins by hand (measuring: test_envs_obstacles.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs_mjx import TASKS
from experiments.bench.tasks import rate, recoveries
from experiments.cli import main
from experiments.phases.demos import careless_then_recover, first_runs, new_watch
from farl_jax.config import DemosConfig
from farl_jax.data.margins import foreseen_margin, resolve_margins
from tests.toy import CliffWalker


def test_rate_is_wilsons_interval() -> None:
    got = rate(np.arange(100) < 10)
    np.testing.assert_allclose(
        [got["rate"], got["low"], got["high"]], [0.1, 0.0552, 0.1744], atol=1e-4
    )
    assert rate(np.zeros(100, bool))["low"] == 0.0 and rate(np.zeros(100, bool))["high"] < 0.05
    assert rate(np.zeros(0, bool))["count"] == 0


def test_recoveries_are_judged_by_their_first_takeover() -> None:
    t, f = True, False
    intervened = np.array(
        [
            [f, t, t, f, t, f],  # safe after two steps; the second takeover does not count
            [f, t, t, t, f, f],  # not safe in three steps
            [t, t, f, f, f, f],  # fails, then safe
            [f, f, f, f, t, t],  # cut short by the end of the episode
            [f, f, f, f, f, f],  # none
            [t, t, t, t, t, f],  # safe, but one step too late
        ]
    ).T
    failure = np.zeros_like(intervened)
    failure[4, 0] = failure[0, 2] = failure[5, 1] = True  # the first and the last are outside
    margin = np.full(intervened.shape, 0.1)
    margin[[2, 1, 3], [0, 2, 5]] = 0.3
    takeover, recovered, failed = recoveries(intervened, failure, margin, 0.3, 3)
    np.testing.assert_array_equal(takeover, [t, t, t, f, f, t])
    np.testing.assert_array_equal(recovered, [t, f, f, f, f, f])
    np.testing.assert_array_equal(failed, [f, f, t, f, f, f])


def test_margins_are_the_tasks_own_unless_given() -> None:
    env = CliffWalker()
    own = resolve_margins(DemosConfig(), env)
    assert (own.danger_margin, own.safe_margin) == (env.danger_margin, env.safe_margin)
    given = resolve_margins(DemosConfig(danger_margin=0.0, danger_lead=3.0, safe_margin=0.7), env)
    assert (given.danger_margin, given.danger_lead, given.safe_margin) == (0.0, 3.0, 0.7)


def test_a_margin_is_foreseen_only_where_it_shrinks() -> None:
    margin, before = np.array([0.30, 0.30, 0.30]), np.array([0.32, 0.30, 0.28])
    np.testing.assert_allclose(foreseen_margin(margin, before, 10.0), [0.10, 0.30, 0.30])
    np.testing.assert_array_equal(foreseen_margin(margin, before, 0.0), margin)


class Walker(CliffWalker):
    """Carelessness walks to the cliff or away from it, recovery walks back."""

    careless = staticmethod(lambda obs, traits: traits[None])
    recovery = staticmethod(lambda obs: jnp.array([-1.0]))


def test_first_runs() -> None:
    flags = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]], bool)
    first = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]], bool)
    np.testing.assert_array_equal(first_runs(flags), first)


def takeovers(way: float, start: float, lead: float, steps: int) -> list[bool]:
    """Whether recovery acts, step by step, of a careless walk from `start`."""
    env = Walker()
    config = DemosConfig(danger_lead=lead, recovery_noise=0.0)
    act = careless_then_recover(env, jnp.array([way]), jnp.float32(env.danger_margin), config)
    state = jax.tree.map(lambda leaf: leaf[None], env.reset_at(0.65))
    memory, took = new_watch(1), []
    state = state.replace(physics=jnp.array([start]))
    for _ in range(steps):
        memory, decision = act(memory, state, jax.random.key(0))
        took.append(bool(decision.intervened[0]))
        state = jax.vmap(env.step)(state, decision.action)
    return took


@pytest.mark.parametrize(("way", "taken_over"), [(1.0, True), (-1.0, False), (0.0, False)])
def test_recovery_takes_over_only_where_the_margin_shrinks(way: float, taken_over: bool) -> None:
    took = takeovers(way, 0.72, 0.0, 4)
    assert any(took) == taken_over
    assert not took[0]  # nothing is known to shrink at the first step


def test_noise_disturbs_only_recovery_and_not_what_it_intends() -> None:
    env, size = Walker(), 3
    config = DemosConfig(danger_lead=0.0, recovery_noise=0.5)
    danger = jnp.float32(env.danger_margin)
    act = jax.jit(careless_then_recover(env, jnp.ones(size), danger, config))
    state = jax.vmap(lambda _: env.reset_at(0.65))(jnp.arange(size))
    memory, state = new_watch(size), state.replace(physics=jnp.full(size, 0.72))
    decisions = []
    for i in range(4):
        memory, decision = act(memory, state, jax.random.key(i))
        decisions.append(decision)
        state = jax.vmap(env.step)(state, decision.action)
    acts = np.array([d.intervened for d in decisions])
    moved = np.array([d.action != d.task_action for d in decisions])[..., 0]
    assert acts.any() and not moved[~acts].any()
    assert not moved[:, 0].any() and moved[:, 2].any()  # the level grows with the row
    np.testing.assert_array_equal(np.array([d.task_action for d in decisions])[acts], -1.0)


def test_a_lead_of_two_steps_takes_over_two_steps_earlier() -> None:
    late, early = (takeovers(1.0, 0.4, lead, 12).index(True) for lead in (0.0, 2.0))
    assert early == late - 2


@pytest.mark.parametrize("words", [["--episodes", "0"], ["--task", "bounded_pusch"]])
def test_bad_words_are_one_line(words: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main(["tasks", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_every_task_has_margins_in_order() -> None:
    for task in TASKS.values():
        assert 0.0 < task.danger_margin < task.safe_margin
