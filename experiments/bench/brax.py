"""`farl bench brax PYTHON`: seconds of one PPO update, ours and Brax's, in turn on this machine.

Both have the same networks, environments, steps, epochs and minibatches. Ours takes every gradient
step here: no warm-up of the critic, no stop by the KL, no gate. Brax's runs in another Python
(tests/oracle/bench_brax.py). It has no update to call alone, only a training step of rollout and
update. So it is timed twice, with our number of epochs and with twice as many. The difference is
the update.
"""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.arguments_bench import BenchBraxArgs
from experiments.bench.loop_parts import Setup, timed
from experiments.errors import UserError
from experiments.process.machine import describe_environment
from experiments.process.outputs import check_output, write_json
from farl_jax.config import FarlConfig, replace
from farl_jax.methods import BASELINE, METHODS
from farl_jax.online.loop import make_online

LEARNERS = {
    "ours": "ours: PPO update",
    "brax": "Brax: PPO update (the difference)",
    "brax_step": "Brax: training step (rollout and update)",
    "brax_twice": "Brax: training step, twice the epochs",
}
_ANY_KL = 1e9


def run(args: BenchBraxArgs, console: Console) -> list[dict[str, Any]]:
    """Time all learners `args.rounds` times in turn; print and return a row for each.

    Raises:
        UserError: the other Python cannot measure Brax.
    """
    check_output("--out", args.out)
    setup = Setup("bounded_push", "native", args.num_envs)
    config = busy(setup.config)
    once = sizes(setup, config) | {"turns": args.rounds + 1}
    twice = once | {"epochs": 2 * once["epochs"]}
    with brax_turns(args.python, once) as step, brax_turns(args.python, twice) as longer:
        about = {k: v for k, v in step().items() if k not in ("seconds", "epochs")}
        longer()  # both are ready; the first step may have run beside a compilation
        update = our_turns(setup, config)
        turns: dict[str, list[float]] = {"ours": [], "brax_step": [], "brax_twice": []}
        for _ in range(args.rounds):
            turns["ours"].append(update())
            turns["brax_step"].append(step()["seconds"])
            turns["brax_twice"].append(longer()["seconds"])
    rows = compared(turns)
    console.print(table(rows, once))
    version, jax_version, device = (about[name] for name in ("brax", "jax", "device"))
    console.print(
        f"Brax {version} with JAX {jax_version} on {device}; ours with JAX {jax.__version__} on "
        f"{jax.devices()[0].device_kind}",
        highlight=False,
        soft_wrap=True,
    )
    if args.out is not None:
        whole = {"rows": rows, "sizes": once, "turns": turns, "brax": about}
        write_json(args.out, whole | {"environment": describe_environment()})
    return rows


def busy(config: FarlConfig) -> FarlConfig:
    """Return the settings with which each epoch and minibatch is a step of actor and critic."""
    return replace(config, {"online": {"critic_warmup": 0, "target_kl": _ANY_KL}})


def sizes(setup: Setup, config: FarlConfig) -> dict[str, int]:
    """Return what both learners have in common.

    Raises:
        UserError: Brax's minibatches are whole rollouts of an environment, and do not come out.
    """
    online, network = config.online, config.network
    if online.num_envs % online.minibatches:
        raise UserError(f"--num-envs must be a multiple of {online.minibatches}, for Brax")
    names = ("num_envs", "rollout", "epochs", "minibatches")
    env = {"observation_size": setup.env.observation_size, "action_size": setup.env.action_size}
    common = {name: getattr(online, name) for name in names}
    return common | {k: getattr(network, k) for k in ("width", "depth", "critic_depth")} | env


def our_turns(setup: Setup, config: FarlConfig) -> Callable[[], float]:
    """Return a function that makes one update on a recorded rollout and returns its seconds."""
    phase = make_online(setup.env, setup.nets, config, METHODS[BASELINE])
    state = phase.init(setup.frozen, jax.random.key(0))
    state, steps = phase.collect(state, setup.frozen, setup.gate)

    def turn() -> float:
        nonlocal state
        (state, _), seconds = timed(phase.update, state, setup.frozen, steps, None)
        return seconds

    turn()  # compiles
    return turn


@contextlib.contextmanager
def brax_turns(python: Path, ask: dict[str, int]) -> Iterator[Callable[[], dict[str, Any]]]:
    """Start Brax's learner. It gives a function that lets it make one training step.

    The function returns {seconds, epochs, brax, jax, jaxlib, device}. The first call waits for
    compilation.

    Raises:
        UserError: `python` does not start, has no brax, or prints something else.
    """
    script = Path(__file__).parents[2] / "tests" / "oracle" / "bench_brax.py"
    variables = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    with tempfile.TemporaryFile("w+") as errors:

        def refuse(reason: str) -> UserError:
            return UserError(
                f"{python} could not measure Brax ({reason}): give a Python with brax, and run "
                "from a checkout"
            )

        try:
            process = subprocess.Popen(
                [python, script, json.dumps(ask)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=variables,
            )
        except OSError as error:
            raise refuse(error.strerror or str(error)) from None
        started = False

        def turn() -> dict[str, Any]:
            nonlocal started
            try:
                if started:
                    process.stdin.write("\n")
                    process.stdin.flush()
                started = True
                return step_of(process.stdout.readline())
            except (OSError, ValueError):
                process.kill()
                process.wait()
                errors.seek(0)
                lines = errors.read().strip().splitlines()
                raise refuse(lines[-1] if lines else "it printed no training step") from None

        try:
            yield turn
        finally:
            process.kill()
            process.communicate()


def step_of(line: str) -> dict[str, Any]:
    """Return the training step that a line of Brax's learner tells.

    Raises:
        ValueError: it tells none.
    """
    row = json.loads(line)
    if not (isinstance(row, dict) and {"seconds", "brax", "jax", "device"} <= row.keys()):
        raise ValueError(f"no training step: {line!r}")
    return row


def compared(turns: dict[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return a row for each learner from seconds of R turns each.

    `brax` is the difference of the two training steps of each turn.
    """
    difference = np.subtract(turns["brax_twice"], turns["brax_step"])
    seconds = {name: np.asarray(turns.get(name, difference)) for name in LEARNERS}
    ours = np.median(seconds["ours"])
    return [
        {
            "learner": name,
            "seconds": float(np.median(taken)),
            "lowest": float(taken.min()),
            "highest": float(taken.max()),
            "over_ours": float(np.median(taken) / ours),
        }
        for name, taken in seconds.items()
    ]


def table(rows: list[dict[str, Any]], size: dict[str, int]) -> Table:
    """Return the rows as a table."""
    title = (
        f"{size['num_envs'] * size['rollout']:,} steps, {size['epochs']} epochs of "
        f"{size['minibatches']} minibatches"
    )
    made = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    made.add_column("learner", no_wrap=True)
    for name in ("seconds", "lowest", "highest", "over ours"):
        made.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        numbers = (f"{row[k]:.3f}" for k in ("seconds", "lowest", "highest"))
        made.add_row(LEARNERS[row["learner"]], *numbers, f"{row['over_ours']:.2f}")
    return made
