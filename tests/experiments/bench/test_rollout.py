"""`farl bench`: how long its rollouts are."""

import jax
import pytest

from experiments.bench.rollout import ENOUGH, rollout_length


@pytest.mark.parametrize(("backend", "steps"), [("native", 16_000), ("mjx", 4_000)])
def test_rollouts_are_shorter_only_where_little_time_is_given(backend, steps, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert rollout_length(backend, 32, 10 * ENOUGH) == steps // 32
    assert rollout_length(backend, 32, ENOUGH / 4) == steps // 128
    assert rollout_length(backend, 32, 1e-6) == rollout_length(backend, 8192, ENOUGH) == 4


def test_on_a_gpu_their_length_is_that_of_training_whatever_the_time(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert rollout_length("mjx", 1024, 0.1) == rollout_length("mjx", 1024, 30.0) == 64
    assert rollout_length("native", 32, ENOUGH) == 500  # native physics stays on the host
