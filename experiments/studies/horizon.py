"""`farl sweep horizon`: compare horizons, discounts and trigger rates of a trained run's gate.

All gates have the paper's rule, without a tail.

To compare training horizons of the failure head, make one run for each:
`farl sweep -o OUT --list --set world_model.train_horizon=4,9,13,21 --set safety.horizon=3,8,12,20`.
"""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from experiments.arguments import HorizonArgs
from experiments.errors import UserError
from experiments.figures.decoration import decoration
from experiments.figures.runs import horizon_figure
from experiments.known import known, shown
from experiments.phases.newest import newest
from experiments.process.console import command_typed
from experiments.process.outputs import write_json
from experiments.runs.begin import begin
from experiments.runs.begin import study as work_of
from experiments.runs.run import Run
from experiments.studies.diagnose import make_roll
from farl_jax.agent import Agent
from farl_jax.config import FarlConfig, HorizonConfig, replace
from farl_jax.measure import diagnosis, horizon
from farl_jax.methods import METHODS, find_method
from farl_jax.safety import behaviour
from farl_jax.safety.gate import Gate
from farl_jax.types import Transition


def study(run: Run, args: HorizonArgs) -> dict[str, Any]:
    """Write `<run>/<method>/horizon.json` and `.png`, or `horizon_offline` for that policy."""
    method, config, offline = args.method, args.study, args.policy == "offline"
    if find_method(method).gate != "world_model":
        raise UserError(f"{method} does not gate with a world model; choose --method farl")
    if run.on_host:
        raise UserError(
            f"{run.path}: the study steps many gates at once, which an environment of your own "
            "cannot; compare horizons by runs, farl sweep --set safety.horizon=..."
        )
    name = "horizon_offline" if offline else "horizon"
    begin(run, work_of(method, name), overwrite=args.overwrite)
    frozen = run.offline_result()
    step, learnt = (0, frozen) if offline else newest(run, method, frozen)[:2]
    settings = run.settings.config
    train_horizon = settings.world_model.train_horizon
    settings = plain_gate(settings, max(config.horizons))
    run.say(f"policy and world model of step {step:,}")
    gates, watched, seconds = watch(run, settings, config, learnt)
    acting = act(run, settings, config, method, learnt, gates)
    rates = np.repeat(config.trigger_rates, len(watched) // len(config.trigger_rates))
    of_gates = [float(r) for r in rates], watched, acting[:-1]
    rows = [
        {
            "horizon": int(gates.horizon[g]),
            "gamma_risk": round(float(gates.gamma_risk[g]), 6),
            "max_risk": float(gates.max_risk[g]),
            "beyond_training": int(gates.horizon[g]) > train_horizon - 1,
            "target_rate": rate,
            "watched": foreseen,
            "acting": acted,
        }
        for g, (rate, foreseen, acted) in enumerate(zip(*of_gates, strict=True))
    ]
    report = {
        "task": run.settings.task,
        "seed": run.settings.seed,
        "method": method,
        "policy_step": step,
        "train_horizon": train_horizon,
        "hold": settings.safety.hold,
        "lead_time": settings.safety.lead_time,
        "study": dataclasses.asdict(config),
        "gate_seconds": seconds,
        "ungated": acting[-1],
        "rows": rows,
        "command": command_typed(),
    }
    report = jax.tree.map(known, report)
    write_json(run.path / method / f"{name}.json", report)
    run.console.print(_table(report))
    with decoration("figure", f"farl report {run.path} draws it from {name}.json"):
        figure = horizon_figure(run.path / method / f"{name}.png", report)
        run.say(f"figure: {figure}")
    return report


def plain_gate(settings: FarlConfig, longest: int) -> FarlConfig:
    """`settings` with the paper's rule, without a tail, for horizons up to `longest`.

    A run may not imagine farther than its model was trained. The study asks what happens then, so
    here the limit is moved.
    """
    changes = {
        "safety": {"rule": "paper", "tail": False, "release": 1.0, "horizon": longest},
        "world_model": {"train_horizon": max(settings.world_model.train_horizon, longest + 1)},
        "adaptation": {"every": 0},
    }
    return replace(settings, changes)


def watch(
    run: Run, settings: FarlConfig, config: HorizonConfig, learnt: Agent
) -> tuple[Gate, list[dict[str, Any]], dict[str, float]]:
    """Match eps_safe of all gates on ungated rollouts, and measure their foresight.

    Returns:
        gates [G], by trigger rate, then gamma_risk, then horizon; one report per gate; and seconds
        for the risk of all watched steps, of one gate with the longest horizon and of all gates.
    """
    length = math.ceil(config.watch_steps / settings.online.num_envs)
    roll = make_roll(run, settings, METHODS["uni_o4"], length)
    steps = roll(learnt, run.key("horizon_watch"))
    pairs = [(h, gamma) for gamma in config.gammas for h in config.horizons]
    gates = Gate(
        horizon=jnp.array([h for h, _ in pairs]),
        gamma_risk=jnp.array([gamma for _, gamma in pairs]),
        max_risk=jnp.full(len(pairs), jnp.inf),
    )
    cost, seconds = _costs(run, settings, learnt, gates, steps)
    host = jax.device_get(steps)
    done, top = np.asarray(host.done), max(config.horizons)
    labels, _ = diagnosis.later_failures(host.failure, done, top)
    thresholds = horizon.matched_thresholds(cost, ~host.failure, config.trigger_rates)
    reports = [
        horizon.foresight(cost[g], labels, done, float(eps), settings.safety.lead_time)
        for row in thresholds
        for g, eps in enumerate(row)
    ]
    run.say(
        f"watched {host.failure.size:,} ungated steps: {int(host.first_failure.sum())} failure "
        f"episodes of {int(done.sum())}; risks of {len(pairs)} (H, gamma_risk) in "
        f"{seconds['all_gates']:.2f} s, of one H = {top} in {seconds['one_gate']:.2f} s"
    )
    rates = len(config.trigger_rates)
    repeated = jax.tree.map(lambda x: jnp.tile(x, rates), gates)
    return repeated.replace(max_risk=jnp.asarray(thresholds.reshape(-1))), reports, seconds


def _costs(
    run: Run, settings: FarlConfig, learnt: Agent, gates: Gate, steps: Transition
) -> tuple[np.ndarray, dict[str, float]]:
    """Risk [G, T, N] of the watched steps, and seconds for all gates and for the longest H."""
    top = settings.safety.horizon
    costs = horizon.make_costs(run.networks(), settings.safety, top)
    longest = Gate.create(top, settings.world_model.gamma_risk, jnp.inf)
    inputs, cost, seconds = (steps.obs, steps.decision.task_action), None, {}
    one = jax.tree.map(lambda x: x[None], longest)
    for name, some in (("one_gate", one), ("all_gates", gates)):
        program = costs.lower(learnt, some, *inputs).compile()
        started = time.perf_counter()
        cost = program(learnt, some, *inputs).block_until_ready()
        seconds[name] = round(time.perf_counter() - started, 4)
    return np.asarray(cost), seconds


def act(
    run: Run,
    settings: FarlConfig,
    config: HorizonConfig,
    method: str,
    learnt: Agent,
    gates: Gate,
) -> list[dict[str, Any]]:
    """Run all gates on the frozen policy: one row per gate, and last one without a gate."""
    env = run.online_env(config.num_envs)
    controller_of = behaviour.make_controller(
        run.networks(), settings, METHODS[method], explore=True
    )
    memory_of = lambda: behaviour.start_memory(settings, METHODS[method], env)
    start, advance = horizon.make_trial(env, controller_of, memory_of, config.chunk)
    never = Gate.create(1, 1.0, jnp.inf)
    gates = jax.tree.map(lambda x, y: jnp.append(x, y.astype(x.dtype)), gates, never)
    key_start, key_run = jax.random.split(run.key("horizon_act"))
    chunks = math.ceil(config.act_steps / (config.num_envs * config.chunk))
    trial, started = start(gates, key_start), time.perf_counter()
    rows = len(gates.horizon) * config.num_envs * config.chunk
    for i, key in enumerate(jax.random.split(key_run, chunks), 1):
        trial = advance(trial, learnt, gates, key)
        if i == chunks or i % max(1, chunks // 5) == 0:
            jax.block_until_ready(trial.calm)
            rate = i * rows / (time.perf_counter() - started)
            run.say(
                f"  {len(gates.horizon)} gates at once: {i * config.chunk * config.num_envs:,} "
                f"steps each, {rate:,.0f} steps/s"
            )
    return horizon.outcomes(trial, env, config.draws)


def _table(report: dict[str, Any]) -> Table:
    base = report["ungated"]
    table = Table(
        title=f"ungated: {base['failure_episodes']} failure episodes of {base['episodes']}, "
        f"return {shown(base['return'], '.1f')}; * H beyond the training windows"
    )
    for name in ("H", "gamma", "aimed\nrate", "eps_safe", "recall", "lead"):
        table.add_column(name, justify="right")
    for name in ("trigger\nrate", "failure\nepisodes", "fewer, %", "95 %", "return"):
        table.add_column(name, justify="right")
    for row in report["rows"]:
        watched, acting = row["watched"], row["acting"]
        low, high = (shown(x, ".0f") for x in acting["reduction_percent_interval"])
        table.add_row(
            f"{row['horizon']}{'*' if row['beyond_training'] else ''}",
            f"{row['gamma_risk']:g}",
            f"{row['target_rate']:g}",
            shown(row["max_risk"], ".2g"),
            shown(watched["recall"], ".2f"),
            shown(watched["lead"], ".0f"),
            shown(acting["trigger_rate"], ".3f"),
            str(acting["failure_episodes"]),
            shown(acting["reduction_percent"], ".0f"),
            f"{low} to {high}",
            shown(acting["return"], ".1f"),
        )
    return table
