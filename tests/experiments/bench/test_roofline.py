"""Counts of a compiled program, against XLA's own and by hand, and the bounds made of them."""

import re

import jax
import jax.numpy as jnp
import pytest

from experiments.bench.hlo import Cost, cost, read
from experiments.bench.roofline import Count, Device

WEIGHTS = jax.ShapeDtypeStruct((64, 64), "float32")


def looped(x, w):
    """Seven products of [64, 64], each with a tanh."""
    return jax.lax.fori_loop(0, 7, lambda _, x: jnp.tanh(x @ w), x)


def searched(x, w):
    """Products until the sum is small: nobody knows how many."""
    return jax.lax.while_loop(lambda x: jnp.sum(x) > 1.0, lambda x: jnp.sin(x @ w), x)


def compiled(function):
    return jax.jit(function).lower(WEIGHTS, WEIGHTS).compile()


def test_a_loop_counts_as_often_as_it_runs():
    found = cost(compiled(looped).as_text(), turns=1000.0)
    assert found.unknown_loops == 0
    assert found.flop == pytest.approx(7 * 2 * 64**3, rel=0.02)
    assert 14 <= found.kernels <= 42  # a product and a tanh each, and what moves the loop's values
    assert found.bytes >= 7 * 3 * 4 * 64**2


def test_a_loop_of_unknown_length_takes_the_callers_turns():
    text = compiled(searched).as_text()
    few, many = cost(text, 2.0), cost(text, 4.0)
    assert few.unknown_loops == many.unknown_loops == 1
    assert many.flop == pytest.approx(2 * few.flop, rel=0.01)
    assert few.flop == pytest.approx(2 * 2 * 64**3, rel=0.05)


def mixed(x, w):
    rows = jnp.argsort(x[:, 0])[:8]
    return jnp.tanh(x @ w).at[rows].add(1.0), jnp.exp(w).sum(0), jnp.linalg.norm(x - w)


@pytest.mark.parametrize("function", [looped, mixed])
def test_with_each_loop_once_it_is_near_xlas_own_analysis(function):
    program = compiled(function)
    once = re.sub(r'"known_trip_count":\{"n":"\d+"\}', "", program.as_text())
    found, own = cost(once, 1.0), program.cost_analysis()
    turns = 7 if own["flops"] > 3 * found.flop else 1  # some versions know the turns
    assert found.flop * turns == pytest.approx(own["flops"], rel=0.1)


def test_a_program_is_read_whole():
    computations, entry = read(compiled(mixed).as_text())
    assert computations[entry][0].op == "parameter"
    all_of_them = [one for own in computations.values() for one in own]
    names = {one.name for one in all_of_them}
    assert all(name in names for one in all_of_them for name in one.operands)
    assert all(name in computations for one in all_of_them for name in one.called)


def test_bounds_are_the_largest_of_three_times():
    device = Device("toy", flop_per_second=100.0, bytes_per_second=10.0, launch_seconds=1.0)
    counted = Count(2, 0.5, Cost(kernels=8.0, flop=100.0, bytes=20.0))  # 8 s, 1 s, 2 s at 2
    assert counted.seconds(2, device) == 0.5 * 8.0
    assert counted.crossing(device) == 8.0
    assert counted.seconds(8, device) == 0.5 * 8.0
    assert counted.seconds(16, device) == 0.5 * 16.0
