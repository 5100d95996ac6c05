"""`farl bench train`: env steps per second of FARL's whole online loop, and where its time goes.

Each row is measured in processes of its own, so that compile seconds and peak memory are the row's.
Networks have random weights: their values change neither the gate's cost nor the update's.
"""

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property, partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.arguments import BenchTrainArgs
from experiments.errors import UserError
from experiments.figures.bench import shares_figure
from experiments.figures.decoration import decoration
from experiments.process.console import command_typed
from experiments.process.machine import describe_environment, peak_memory_gb, prepare_jax
from experiments.process.outputs import FIGURES, check_output, write_json
from experiments.runs.presets import preset
from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig
from farl_jax.data.dataset import from_rollout, normalize_rows
from farl_jax.data.rollout import plain_decision, policy_controller, unroll
from farl_jax.methods import METHODS
from farl_jax.online.loop import OnlinePhase, make_online, train
from farl_jax.online.seeds import Seeds
from farl_jax.safety.gate import Gate, policy_recovery
from farl_jax.safety.imagination import make_imagined_risk
from farl_jax.types import Normalizer
from farl_jax.world_model.windows import to_windows

PARTS = ("physics", "policy", "gate", "update", "world_model", "rest")
"""physics: steps with reward and resets; policy: its action; gate: C_H and the recovery's action;
update: PPO and the choice of windows; world_model: its learning online; rest: all of the loop that
the parts, each run alone, do not explain; below 0 if they are quicker together than alone."""
ROUNDS = 5
NEVER = 1 << 30
_WORKER = """
import sys
sys.path[:] = {path}
from experiments.bench.train import main
sys.exit(main())
"""


def run(args: BenchTrainArgs, console: Console) -> list[dict[str, Any]]:
    """Measure every task, backend and batch size; prints a table and writes what `args` name.

    A row that cannot be measured here is said and passed over.
    """
    from envs_mjx import task_class, tasks_named

    tasks = tasks_named(args.task)
    for task in tasks:
        task_class(task)  # refuses an unknown one; to make it would start JAX beside the workers
    check_output("--figure", args.figure, FIGURES)
    check_output("--out", args.out)
    if min(args.num_envs, default=0) < 1 or args.seeds < 1 or args.seconds <= 0:
        raise UserError("--num-envs, --seeds and --seconds must be above 0")
    rows = []
    for wanted in ((t, b, n) for t in tasks for b in args.backends for n in args.num_envs):
        name = "{} {} {} envs".format(*wanted)
        console.print(f"{name} ...", style="dim")
        try:
            rows.append(_in_own_processes(*wanted, args))
        except UserError as error:
            console.print(f"{name}: {error}", highlight=False, soft_wrap=True)
    if not rows:
        raise UserError("nothing could be measured")
    console.print(_table(rows))
    if args.out is not None:
        write_json(args.out, {"rows": rows, "environment": describe_environment()})
    if args.figure is not None:
        with decoration("figure", "the rows are above; the same command measures again"):
            shares_figure(args.figure, rows, PARTS, command_typed())
            console.print(f"figure: {args.figure}", highlight=False, soft_wrap=True)
    return rows


def _in_own_processes(
    task: str, backend: str, num_envs: int, args: BenchTrainArgs
) -> dict[str, Any]:
    """One row; with `cold`, an empty compile cache is filled first, then found full."""
    ask = {"task": task, "backend": backend, "num_envs": num_envs}
    ask |= {"seconds": args.seconds, "seeds": args.seeds}
    if not args.cold:
        return _worker(ask) | {"cold": None}
    with tempfile.TemporaryDirectory() as cache:
        first = _worker(ask | {"seconds": 0.0}, FARL_CACHE_DIR=cache)
        return _worker(ask, FARL_CACHE_DIR=cache) | {"cold": first["warm"]}


def _worker(ask: dict[str, Any], **variables: str) -> dict[str, Any]:
    command = [sys.executable, "-c", _WORKER.format(path=sys.path)]
    text = json.dumps(ask | {"started": time.time()})
    done = subprocess.run(
        [*command, text],
        env=os.environ | {"PYTHONSAFEPATH": "1"} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
        raise UserError(last.removeprefix("farl: "))
    return json.loads(done.stdout.splitlines()[-1])


@dataclasses.dataclass(frozen=True)
class Setup:
    """An online phase of FARL with random weights, and what it starts from."""

    task: str
    backend: str
    num_envs: int

    @cached_property
    def config(self) -> FarlConfig:
        """The paper preset's, with this many environments."""
        config = preset("paper", self.task)
        online = dataclasses.replace(config.online, num_envs=self.num_envs)
        return dataclasses.replace(config, online=online)

    @cached_property
    def env(self) -> Any:
        """The batched environment."""
        from envs_mjx import BatchEnv, make

        return BatchEnv(make(self.task, self.backend), self.num_envs)

    @cached_property
    def nets(self) -> Networks:
        """All networks."""
        return Networks.create(self.config, self.env.observation_size, self.env.action_size)

    @cached_property
    def phase(self) -> OnlinePhase:
        """The compiled functions that are measured."""
        return make_online(self.env, self.nets, self.config, METHODS["farl"])

    @cached_property
    def frozen(self) -> Agent:
        """Small random weights."""
        rng, abstract = np.random.default_rng(0), self.nets.abstract_agent()
        draw = lambda leaf: jnp.asarray(rng.normal(0, 0.05, leaf.shape), leaf.dtype)
        size = self.env.observation_size
        normalizer = Normalizer(jnp.zeros(size), jnp.ones(size))
        return jax.tree.map(draw, abstract).replace(normalizer=normalizer)

    @cached_property
    def gate(self) -> Gate:
        """The configured gate; whatever it decides costs the same."""
        safety, gamma = self.config.safety, self.config.world_model.gamma_risk
        return Gate.create(safety.horizon, gamma, safety.max_risk or 0.01)


def measure(ask: dict[str, Any]) -> dict[str, Any]:
    """What one worker finds: first calls always; parts and rates if it has `seconds` to spend.

    `warm` is {start_seconds: from the process's begin to the end of the first update;
    compile_seconds: what first calls took beyond second ones}, with the cache as it was.
    """
    setup = Setup(ask["task"], ask["backend"], ask["num_envs"])
    phase, frozen, gate = setup.phase, setup.frozen, setup.gate
    state = phase.init(frozen, jax.random.key(0))
    first, second = [], []
    for taken in (first, second):
        (state, steps), seconds = timed(phase.collect, state, frozen, gate)
        (state, _), more = timed(phase.update, state, frozen, steps)
        if taken is first:
            start_seconds = time.time() - ask["started"]
            demos = rehearsal(setup, steps)
        state, most = timed(phase.adapt, state, frozen, demos)
        taken += [seconds, more, most]
    compiling = sum(first) - sum(second)
    row = {"warm": {"start_seconds": start_seconds, "compile_seconds": compiling}}
    if ask["seconds"] > 0:
        row |= {k: ask[k] for k in ("task", "backend", "num_envs")}
        row |= parts(setup, (state, steps, demos), ask["seconds"])
        if ask["seeds"] > 1:
            alone, together = (loop(setup, n, demos, ask["seconds"]) for n in (1, ask["seeds"]))
            row |= {"seeds": ask["seeds"], "seeds_over_one": together / alone}
        row |= {"peak_memory_gb": peak_memory_gb(), "device_memory_gb": device_memory_gb()}
        row |= roofline(setup, row["seconds"]["gate"])
    return row


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """(result, seconds until all of it is there)."""
    started = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    return result, time.perf_counter() - started


def usual(function: Callable[..., Any], *args: Any, seconds: float) -> float:
    """Median seconds of ROUNDS calls, or as many as fit, after one that compiles.

    As in `loop`: a part's quickest call beside the loop's usual one would leave `rest` too large.
    """
    timed(function, *args)
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < ROUNDS and sum(taken) < seconds):
        taken.append(timed(function, *args)[1])
    return float(np.median(taken))


def rehearsal(setup: Setup, steps: Any) -> Any:
    """Windows of a rollout in the demonstrations' place."""
    data = normalize_rows(from_rollout(jax.device_get(steps)), setup.frozen.normalizer)
    return to_windows(data, setup.config.world_model)


def parts(setup: Setup, begun: tuple[Any, Any, Any], seconds: float) -> dict[str, Any]:
    """Env steps per second of the loop, and the seconds of its parts, all per policy update."""
    state, steps, demos = begun
    phase, every = setup.phase, max(setup.config.adaptation.every, 1)
    taken = {k: usual(*program, seconds=seconds) for k, program in programs(setup, begun).items()}
    (state, _), _ = timed(phase.update, state, setup.frozen, steps)
    updating, adapting = [], []
    for _ in range(ROUNDS):
        (state, _), spent = timed(phase.update, state, setup.frozen, steps)
        updating.append(spent)
        state, spent = timed(phase.adapt, state, setup.frozen, demos)
        adapting.append(spent)
    taken |= {
        "update": np.median(updating).item(),
        "world_model": np.median(adapting).item() / every,
    }
    whole = loop(setup, 1, demos, seconds)
    taken["rest"] = whole - sum(taken.values())
    return {
        "steps_per_second": phase.steps_per_update / whole,
        "steps_per_update": phase.steps_per_update,
        "seconds": taken,
        "shares": {name: taken[name] / whole for name in PARTS},
    }


def loop(setup: Setup, number: int, demos: Any, seconds: float) -> float:
    """Seconds of a policy update of `number` seeds in step, with what the world model learns."""
    seeds, every = Seeds(number), max(setup.config.adaptation.every, 1)
    phase = seeds.lift_phase(setup.phase)
    copies = lambda tree: seeds.join([tree] * number)
    frozen, gate, demos = map(copies, (setup.frozen, setup.gate, demos))
    keys = seeds.join(list(jax.random.split(jax.random.key(2), number)))
    turns = train(phase, phase.init(frozen, keys), frozen, gate, NEVER, (every, demos))
    cycle = lambda: [jax.block_until_ready(next(turns)) for _ in range(every)][-1]
    timed(cycle)  # compiles
    taken: list[float] = []
    while len(taken) < 2 or (len(taken) < 2 * ROUNDS and sum(taken) < seconds):
        taken.append(timed(cycle)[1])
    return float(np.median(taken)) / every


def programs(setup: Setup, begun: tuple[Any, Any, Any]) -> dict[str, tuple[Any, ...]]:
    """Parts of a rollout [T, N] as programs of their own, on what it had seen: (function, args)."""
    (state, steps, _), nets = begun, setup.nets
    env, config, frozen = setup.env, setup.config, setup.frozen

    def physics(env_state: Any, actions: jax.Array, key: jax.Array) -> jax.Array:
        replay = lambda t, state, key: (t + 1, plain_decision(actions[t]))
        *_, steps, _ = unroll(env, replay, 0, env_state, key, len(actions))
        return steps

    def policy(obs: jax.Array, key: jax.Array) -> Any:
        act = policy_controller(nets.policy.apply, frozen.policy, frozen.normalizer, explore=True)
        keys = jax.random.split(key, len(obs))
        return jax.lax.map(lambda at: act(None, SimpleNamespace(obs=at[0]), at[1]), (obs, keys))

    def gate(obs: jax.Array, actions: jax.Array) -> Any:
        risk = make_imagined_risk(nets, frozen, setup.gate, config.safety)
        recover = policy_recovery(nets.recovery, frozen.recovery)
        ask = lambda obs, action: (risk(obs, action).cost, recover(None, obs, None, None)[1])
        return jax.lax.map(lambda at: ask(*at), (frozen.normalizer(obs), actions))

    jit = partial(jax.jit, compiler_options=dict(env.compiler_options))
    key, actions = jax.random.key(1), steps.decision.action
    return {
        "physics": (jit(physics), state.env_state, actions, key),
        "policy": (jit(policy), steps.obs, key),
        "gate": (jit(gate), steps.obs, steps.decision.task_action),
    }


def gate_flop(setup: Setup) -> int:
    """Floating-point operations of the rule `paper` and of the recovery's action for one env step.

    2 for each weight of each matrix product: h once, F H + 1 times, d H times, decoder and task
    policy once for each held action, and the recovery policy; with a tail d once more, and Q once.
    """
    abstract, safety = setup.frozen, setup.config.safety
    model = abstract.world_model["params"]
    weights = lambda tree, ndim: sum(x.size for x in jax.tree.leaves(tree) if x.ndim == ndim)
    count = lambda tree, ndim=2: 2 * weights(tree, ndim)
    part = lambda name, ndim=2: count(model.get(name, {}), ndim)
    steps = safety.horizon + safety.tail
    asked = (steps // safety.hold) * (part("decoder") + count(abstract.policy))
    imagined = (safety.horizon + 1) * part("failure_head") + steps * part("dynamics")
    tail = part("risk_heads", 3) if safety.tail else 0  # stacked: [heads, inputs, outputs]
    return part("encoder") + imagined + tail + asked + count(abstract.recovery)


def roofline(setup: Setup, gate_seconds: float) -> dict[str, float]:
    """What the gate takes beside what its arithmetic would take at the speed of one big matmul."""
    size = 2048 if jax.default_backend() == "cpu" else 8192
    square = jnp.ones((size, size))
    peak = 2 * size**3 / usual(jax.jit(jnp.matmul), square, square, seconds=5.0)
    flop = gate_flop(setup) * setup.phase.steps_per_update
    return {
        "gate_flop_per_step": gate_flop(setup),
        "matmul_flop_per_second": peak,
        "gate_flop_per_second": flop / gate_seconds,
        "gate_share_of_matmul": flop / gate_seconds / peak,
    }


def device_memory_gb() -> float | None:
    """The most memory of the device so far, None where it is the host's."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats["peak_bytes_in_use"] / 1e9 if "peak_bytes_in_use" in stats else None


def _table(rows: list[dict[str, Any]]) -> Table:
    parts = (name.removeprefix("world_") for name in PARTS)
    names = ("task", "backend", "envs", "steps/s", *parts, "compile s", "GB", "gate/matmul")
    names += ("seeds",)
    title = "online loop of FARL; parts in % of its time"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap=True, justify="left" if name in names[:2] else "right")
    for row in rows:
        compiling = [row[k]["compile_seconds"] for k in ("cold", "warm") if row[k]]
        memory = row["device_memory_gb"] or row["peak_memory_gb"]
        table.add_row(
            *(row["task"], row["backend"], str(row["num_envs"]), f"{row['steps_per_second']:,.0f}"),
            *(f"{100 * row['shares'][name]:.0f}" for name in PARTS),
            *(" / ".join(f"{s:.0f}" for s in compiling), f"{memory:.1f}"),
            f"{row['gate_share_of_matmul']:.2f}",
            f"{row['seeds']}: {row['seeds_over_one']:.1f}x" if "seeds" in row else "",
        )
    return table


def main() -> int:
    """A worker: the row on stdout's last line, or one line on stderr."""
    from envs_mjx import EnvError

    prepare_jax()
    try:
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    except (EnvError, UserError) as error:
        print(f"farl: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0
