"""What a diagnosis says of rollouts whose answers are known."""

import numpy as np
import pytest

from farl_jax.measure import diagnosis


def rollout(failing, ends, length=12):
    """One environment: failing and ending steps -> (failure, done) [T, 1]."""
    failure, done = np.zeros((length, 1), bool), np.zeros((length, 1), bool)
    failure[list(failing)], done[list(ends)] = True, True
    return failure, done


def test_a_failure_counts_only_in_its_own_episode_and_inside_the_rollout():
    failure, done = rollout(failing=[5, 8], ends=[6])
    labels, known = diagnosis.later_failures(failure, done, horizon=2)
    assert np.flatnonzero(labels[0, :, 0]).tolist() == [5, 8]
    assert np.flatnonzero(labels[1, :, 0]).tolist() == [4, 7]
    assert np.flatnonzero(labels[2, :, 0]).tolist() == [3]  # not 6: the episode ended between
    assert np.flatnonzero(~known[2, :, 0]).tolist() == [10, 11]
    failure, done = rollout(failing=[], ends=[11])
    assert diagnosis.later_failures(failure, done, 2)[1].all()  # nothing can fail after the end


def test_a_perfect_and_a_blind_model():
    rng = np.random.default_rng(0)
    failure = rng.random((200, 8)) < 0.05
    done = np.zeros_like(failure)
    labels, known = diagnosis.later_failures(failure, done, 3)
    perfect = diagnosis.foresight(labels.astype(float), labels, known, labels[0])
    assert perfect["auroc"] == perfect["auprc"] == [1.0, 1.0, 1.0] and max(perfect["ece"]) == 0.0
    np.testing.assert_allclose(perfect["rate"], 0.05, atol=0.02)
    blind = diagnosis.foresight(np.full(labels.shape, 0.5), labels, known, labels[0])
    assert blind["auroc"] == [0.5, 0.5, 0.5] and blind["ece"][0] == pytest.approx(0.45, abs=0.02)


def test_reliability_of_the_true_cost_is_the_diagonal():
    failure = np.random.default_rng(1).random((300, 4)) < 0.1
    labels, known = diagnosis.later_failures(failure, np.zeros_like(failure), 2)
    cost = np.where(labels.any(0), 0.9 ** labels.argmax(0), 0.0)
    bins = diagnosis.reliability(cost, labels, known, labels[0], 0.9, bins=5)
    np.testing.assert_allclose(bins["predicted"], bins["realised"], rtol=1e-6)
    assert bins["predicted"][0] == 0.0 and bins["predicted"][-1] > 0.5
    use = ~labels[0] & known.all(0)
    assert bins["events"][0] == 0 and sum(bins["events"]) == (labels.any(0) & use).sum()


def test_the_worst_factor_looks_where_there_are_events():
    bins = {"predicted": [0.0, 0.1, 0.3], "realised": [0.01, 0.2, 0.2], "events": [49, 50, 900]}
    assert diagnosis.worst_factor(bins) == pytest.approx(2.0)
    assert diagnosis.worst_factor(bins, least=51) == pytest.approx(1.5)
    assert diagnosis.worst_factor(bins, least=49) == pytest.approx(1e7)
    assert np.isnan(diagnosis.worst_factor(bins, least=901))


def test_the_gate_report_counts_alarms_lead_and_misses():
    """Two episodes of 20; the first fails at 10 after alarms at 5 and 9, the second unforeseen."""
    failure, done = rollout(failing=[10, 35], ends=[19, 39], length=40)
    cost = np.zeros((40, 1))
    cost[[5, 9, 25], 0] = 1.0
    labels, _ = diagnosis.later_failures(failure, done, 8)
    report = diagnosis.gate_report(cost, labels, done, 0.5, lead_time=2)
    assert report["onsets"] == 2 and report["recall"] == 0.5 + 0.5 * (25 >= 35 - 10)
    assert report["trigger_rate"] == pytest.approx(3 / 38)
    assert report["precision"] == pytest.approx(2 / 3)  # 25 is 10 steps before, beyond H = 8
    assert report["lead"] == np.median([5, 10])
    silent = diagnosis.gate_report(cost, labels, done, 2.0, lead_time=2)
    assert silent["recall"] == 0.0 and np.isnan(silent["precision"]) and np.isnan(silent["lead"])
