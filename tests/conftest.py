"""Settings of the whole suite: precision and compile cache are those of the commands."""

import jax
import pytest

from experiments.process.machine import prepare_jax

prepare_jax()


@pytest.fixture
def no_rank_promotion():
    """Arrays of different rank do not broadcast (networks need it; formulas must not)."""
    with jax.numpy_rank_promotion("raise"):
        yield
