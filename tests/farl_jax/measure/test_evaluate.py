"""Ranking and calibration scores against brute force; first episodes count, in full, alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from farl_jax.data.rollout import plain_decision
from farl_jax.measure import evaluate
from farl_jax.types import Decision, Transition
from farl_jax.world_model import scores
from tests.toy import CliffWalker, make_toy

RNG = np.random.default_rng(0)
SCORES = {
    "distinct": RNG.permutation(60) / 60.0,
    "tied": RNG.integers(0, 5, 60) / 5.0,
    "constant": np.full(60, 0.5),
}
LABEL = RNG.random(60) < 0.3


@pytest.mark.parametrize("kind", SCORES)
def test_auroc_is_the_share_of_pairs_in_order(kind):
    score = SCORES[kind]
    pairs = score[LABEL][:, None] - score[~LABEL][None]
    by_count = (pairs > 0).mean() + 0.5 * (pairs == 0).mean()
    np.testing.assert_allclose(scores.auroc(score, LABEL), by_count, rtol=1e-12)


def test_auroc_by_hand_and_without_one_of_the_classes():
    score = np.array([0.9, 0.8, 0.3, 0.1])
    assert scores.auroc(score, np.array([1, 1, 0, 0])) == 1.0
    assert scores.auroc(score, np.array([0, 0, 1, 1])) == 0.0
    assert scores.auroc(score, np.array([1, 0, 1, 0])) == 0.75
    assert np.isnan(scores.auroc(score, np.zeros(4)))
    assert np.isnan(scores.auroc(score, np.ones(4)))


def average_precision_by_count(score, label):
    """Sum over thresholds of precision x gain in recall: equal scores are one threshold."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(score), reverse=True):
        called = score >= threshold
        recall = (called & label).sum() / label.sum()
        total += (recall - before) * (called & label).sum() / called.sum()
        before = recall
    return total


def test_average_precision_by_hand():
    score, label = np.array([0.9, 0.8, 0.3, 0.1]), np.array([1, 0, 1, 0])
    np.testing.assert_allclose(scores.average_precision(score, label), (1 + 2 / 3) / 2)
    assert np.isnan(scores.average_precision(score, np.zeros(4)))


@pytest.mark.parametrize("kind", SCORES)
def test_average_precision_equals_the_count_over_thresholds(kind):
    expected = average_precision_by_count(SCORES[kind], LABEL)
    np.testing.assert_allclose(scores.average_precision(SCORES[kind], LABEL), expected)


def test_average_precision_ignores_the_order_of_the_rows():
    """A saturated sigmoid gives many equal scores: where their rows stand must not matter."""
    order = np.argsort(~LABEL)  # positives first
    found = [scores.average_precision(SCORES["tied"][o], LABEL[o]) for o in (order, order[::-1])]
    np.testing.assert_allclose(*found)


def test_calibration_error_by_hand():
    # bins of 1/2: two rows of .2 of which one fails, two of .9 that both fail (1.0 is in the last)
    probability, label = np.array([0.2, 0.2, 0.8, 1.0]), np.array([1, 0, 1, 1])
    got = scores.calibration_error(probability, label, bins=2)
    np.testing.assert_allclose(got, 0.5 * abs(0.2 - 0.5) + 0.5 * abs(0.9 - 1.0))


def test_calibration_error_of_honest_and_of_shifted_probabilities():
    probability = RNG.random(40_000)
    label = RNG.random(40_000) < probability
    assert scores.calibration_error(probability, label) < 0.02
    assert abs(scores.calibration_error(np.full(40_000, 0.75), label) - 0.25) < 0.02


def test_failure_report_takes_each_step_apart_and_onsets_only_from_safe_starts():
    failure = np.array([[1, 0, 0, 0], [1, 1, 0, 0]], bool)
    probability = np.array([[0.9, 0.2, 0.1, 0.3], [0.1, 0.8, 0.9, 0.2]])
    report = scores.failure_report(probability, failure, ~failure[0])
    assert set(report) == {f"{k}_{i}" for k in ("auroc", "auprc", "ece") for i in (0, 1)} | {
        "onset_auroc_1"
    }
    assert report["auroc_0"] == report["auprc_0"] == 1.0
    assert report["auroc_1"] == 0.25  # of 2 x 2 pairs, only (.8, .2) is in order
    assert report["onset_auroc_1"] == 0.5  # without the window that starts failed


# ---- episodes, [T = 4, N = 3]: one success after 2 steps, one cut after 3, one that goes on


def column(*rows):
    return jnp.array(rows).T


TERMINATED = column([0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]) == 1
TRUNCATED = column([0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]) == 1
FIRST = column([1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]) == 1


def steps():
    failure = column([0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]) == 1
    intervened = column([0, 1, 1, 1], [1, 1, 0, 1], [0, 0, 0, 0]) == 1
    reward = column([1.0, 2.0, 50, 50], [0.0, 0.0, 1.0, 50], [4.0, 4.0, 4.0, 4.0])
    decision = plain_decision(reward[..., None])
    number = jnp.zeros((4, 3))
    return Transition(
        obs=number[..., None],
        decision=Decision(**vars(decision) | {"intervened": intervened}),
        reward=reward,
        failure=failure,
        first_failure=failure,
        success=TERMINATED,
        terminated=TERMINATED,
        truncated=TRUNCATED,
        diverged=column([0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]) == 1,
        next_obs=number[..., None],
        margin=number,
        next_margin=number,
        episode_return=number,
        failing_steps=number,
        step_count=number,
    )


def test_the_first_episode_includes_its_last_step_and_nothing_after():
    np.testing.assert_array_equal(evaluate.first_episodes(steps()), FIRST)


def test_summary_of_a_hand_made_rollout():
    env = make_toy(3)  # references: random 0, expert 20
    got = {k: float(v) for k, v in evaluate.episode_summary(steps(), env).items()}
    scores = 5 * np.array([3.0, 1.0, 16.0])
    expected = {
        "success": 1 / 3,
        "failure_episodes": 1 / 3,  # the first row fails only after its first episode
        "failing_steps": 2 / 3,
        "recovered_share": 3 / 9,
        "length": 3.0,
        "return": 20 / 3,
        "normalized_return": scores.mean(),
        "normalized_return_se": scores.std(ddof=1) / np.sqrt(3),
        "diverged": 1.0,
    }
    assert set(got) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)


def test_evaluation_of_known_walkers_is_exact_and_depends_on_its_key():
    """Full speed left from x in [.3, .85] succeeds after ceil((x - .05) / .1) steps."""
    env = make_toy(32)

    def controller_of(direction):
        walk = lambda memory, state, key: (
            memory,
            plain_decision(jnp.full((env.num_envs, 1), direction)),
        )
        return None, walk

    run = evaluate.make_evaluate(env, controller_of)
    left, right = run(jax.random.key(1), -1.0), run(jax.random.key(1), 1.0)
    start = np.asarray(env.reset(jax.random.split(jax.random.key(1))[0]).obs[:, 0])
    length = np.ceil((start - 0.05) / 0.1 - 1e-4)
    assert left["success"] == 1.0 and left["failing_steps"] == 0.0
    np.testing.assert_allclose(left["length"], length.mean(), rtol=1e-6)
    assert right["failure_episodes"] == 1.0 and right["success"] == 0.0
    assert right["length"] == CliffWalker.episode_limit
    for name, value in run(jax.random.key(1), -1.0).items():
        assert value == left[name]
    assert run(jax.random.key(2), -1.0)["length"] != left["length"]
