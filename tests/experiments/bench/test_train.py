"""`farl bench train`: the gate's arithmetic counted twice, the figure, and a short real run."""

import json

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments.bench.loop_parts import PARTS, Setup, gate_flop
from experiments.cli import main
from experiments.figures.bench import shares_figure
from farl_jax.config import replace
from farl_jax.safety.imagination import make_imagined_risk


def flop(jaxpr: jax.extend.core.Jaxpr) -> int:
    """Twice the products of all matrix products, those of loops as often as they run."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            left, out = equation.invars[0].aval, equation.outvars[0].aval
            (contracted, _), _ = equation.params["dimension_numbers"]
            total += 2 * out.size * int(np.prod([left.shape[axis] for axis in contracted]))
        times = equation.params.get("length", 1) if equation.primitive.name == "scan" else 1
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                total += times * flop(inner)
    return total


@pytest.mark.parametrize("task", ["bounded_push", "bounded_soccer"])
@pytest.mark.parametrize(("rule", "futures"), [("paper", 1), ("helps", 2), ("shield", 2)])
def test_the_gates_arithmetic_is_that_of_its_program(task, rule, futures):
    setup, rows = Setup(task, "native", 3), 3
    vars(setup)["config"] = replace(setup.config, {"safety": {"rule": rule}})
    safety = setup.config.safety
    horizon = safety.horizon
    assert (horizon + safety.tail) % safety.hold == 0

    def gate(obs: jax.Array, action: jax.Array) -> tuple[jax.Array, jax.Array]:
        risk = make_imagined_risk(setup.nets, setup.frozen, setup.gate, setup.config.safety)
        return risk(obs, action), setup.nets.recovery.apply(setup.frozen.recovery, obs)

    sizes = setup.nets.sizes
    traced = jax.make_jaxpr(gate)(jnp.zeros((rows, sizes[0])), jnp.zeros((rows, sizes[1])))
    weighing = futures * 2 * rows * (horizon + 1)  # sums over the horizon, products, too
    assert flop(traced.jaxpr) - weighing == rows * gate_flop(setup)


def test_the_figure_has_a_bar_for_each_row(tmp_path):
    shares = dict(zip(PARTS, (0.5, 0.1, 0.2, 0.15, 0.1, -0.05), strict=True))
    row = {"task": "bounded_push", "backend": "native", "steps_per_second": 3000.0}
    rows = [row | {"num_envs": n, "shares": shares} for n in (64, 512)]
    path = shares_figure(tmp_path / "a" / "train.png", rows, PARTS, "farl bench train")
    with Image.open(path) as picture:
        colors = np.asarray(picture.convert("RGB"))
    widths = [(colors == np.array(color)).all(-1).sum() for color in ((213, 94, 0), (0, 114, 178))]
    assert 4.0 < widths[0] / widths[1] < 6.0  # physics takes five times what the policy takes


@pytest.mark.parametrize(
    "words",
    [["--task", "bounded_pusch"], ["--num-envs", "0"], ["--seconds", "0"], ["--seeds", "0"]],
)
def test_bad_words_are_one_line(words, capsys):
    assert main(["bench", "train", *words]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_row_of_native(tmp_path, capsys):
    out = tmp_path / "bench" / "train.json"
    words = ["--num-envs", "16", "--seconds", "0.5", "--no-cold", "--seeds", "2"]
    words += ["--out", str(out)]
    assert main(["bench", "train", *words, "--backends", "native", "nothing"]) == 0
    assert "unknown physics backend 'nothing'" in capsys.readouterr().out
    (row,) = json.loads(out.read_text())["rows"]
    assert row["steps_per_second"] > 10 and row["num_envs"] == 16
    np.testing.assert_allclose(sum(row["shares"].values()), 1.0)
    assert all(row["seconds"][name] > 0 for name in PARTS if name != "rest")
    assert min(row["warm"].values()) > 0 and row["cold"] is None
    assert row["seeds"] == 2 and row["seeds_over_one"] > 1.0
