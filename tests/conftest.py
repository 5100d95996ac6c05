"""Settings of the whole suite: silent broadcasting is an error in our own mathematics."""

import jax
import pytest


@pytest.fixture
def no_rank_promotion():
    """Arrays of different rank do not broadcast (networks need it; formulas must not)."""
    with jax.numpy_rank_promotion("raise"):
        yield
