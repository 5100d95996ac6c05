"""The line through two compiled sizes tells XLA's own account of a third."""

import jax
import pytest

from experiments.bench.loop_parts import Setup
from farl_jax.online.memory import PROBES, Line, Program, line_through, measure, peak_bytes
from farl_jax.online.seeds import group_sizes, seed_bytes


def test_the_line_goes_through_both_points():
    line = line_through((2, 4), (500, 800))
    assert line == Line(200.0, 150.0)
    assert [line.at(n) for n in (2, 4, 8)] == [500, 800, 1400]


def test_a_program_s_bytes_are_counted_once():
    shape = jax.ShapeDtypeStruct((1024,), "float32")
    sort = Program(lambda x, y: jax.numpy.sort(x + y), (shape, shape), True, {})
    line = measure((shape, shape), [sort])
    assert line.at(8) == peak_bytes((shape, shape), [sort], 8)
    assert line.per_seed >= 2 * 4096  # both arguments stay; the result takes the first one's place


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_third_size_of_the_loop_is_told_by_two():
    """Collect and update of the paper's setting; the state with its windows weighs most."""
    setup, third = Setup("bounded_push", "native", 128), 8
    frozen, gate = jax.eval_shape(lambda: (setup.frozen, setup.gate))
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(setup.phase.init, frozen, key)
    rollout = jax.eval_shape(setup.phase.collect, state, frozen, gate)[1]
    programs = [
        Program(setup.phase.collect, (state, frozen, gate), True, {}),
        Program(setup.phase.update, (state, frozen, rollout), True, {}),
    ]
    resident = (state, frozen, gate, rollout)
    line = measure(resident, programs)
    assert third not in PROBES
    assert line.at(third) == pytest.approx(peak_bytes(resident, programs, third), rel=0.02)
    rough = seed_bytes((state, frozen, gate), rollout)
    assert line.per_seed < rough  # the estimate without compiling is the careful one
    assert len(group_sizes(500, line.at, 80 * 10**9)) == 1
    assert len(group_sizes(500, line.at, 8 * 10**9)) > 3
