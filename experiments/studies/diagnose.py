"""`farl diagnose`: how well the world model predicts failures of the offline and newest policy."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError
from experiments.figures.decoration import decoration
from experiments.figures.runs import diagnosis_figure
from experiments.known import known, shown
from experiments.phases.newest import newest
from experiments.process.console import command_typed
from experiments.process.outputs import write_json
from experiments.runs.run import Run
from farl_jax.agent import Agent
from farl_jax.config import FarlConfig
from farl_jax.data import dataset
from farl_jax.data.rollout import unroll
from farl_jax.measure import diagnosis
from farl_jax.methods import Method, find_method
from farl_jax.safety import behaviour, imagination
from farl_jax.safety.gate import Gate
from farl_jax.types import Transition

THRESHOLDS = tuple(float(x) for x in np.logspace(-5, 0.5, 23))


def diagnose(run: Run, method: str) -> dict[str, Any]:
    """Write `<run>/<method>/diagnosis.json` and `.png`.

    It measures three pairs: both of the offline phase; the newest policy with the offline model (a
    frozen model); the newest policy with the newest model.
    """
    config, spec = run.settings.config, find_method(method)
    if spec.gate != "world_model":
        raise UserError(f"{method} does not gate with a world model; choose --method farl")
    frozen = run.offline_result()
    step, latest, gate = newest(run, method, frozen)
    pairs = {"offline policy, offline model": frozen}
    if step > 0:
        pairs[f"policy of step {step:,}, offline model"] = latest.replace(
            world_model=frozen.world_model
        )
        if config.adaptation.every > 0:
            pairs[f"policy of step {step:,}, its model"] = latest
    watch, max_risk, reports = _make_watch(run, config, spec), float(gate.max_risk), {}
    for name, learnt in pairs.items():
        reports[name] = report = _judge(run, config, learnt, watch, max_risk)
        acts, auroc = report["gate"], report["foresight"]["auroc"] or [None]
        recall, precision = (shown(acts[k], ".2f") for k in ("recall", "precision"))
        run.say(
            f"{name}: AUROC step 1 {shown(auroc[0], '.3f')}, step {config.safety.horizon} "
            f"{shown(auroc[-1], '.3f')}; at eps_safe {max_risk:.2g} recall {recall}, precision "
            f"{precision}, trigger rate {shown(acts['trigger_rate'], '.3f')}, lead "
            f"{shown(acts['lead'], '.0f')} steps; risk off by at most a factor of "
            f"{shown(report['worst_factor'], '.2f')} in deciles with 50 events; "
            f"{report['failure_episodes']} failure episodes"
        )
    folder: Path = run.path / method
    saved = {name: jax.tree.map(known, report) for name, report in reports.items()}  # in order
    write_json(folder / "diagnosis.json", {"max_risk": max_risk, "pairs": saved})
    title = f"{run.task_name}: what the world model foresees of the exploring policy, no gate"
    command = command_typed()
    with decoration("figure", f"farl report {run.path} draws it from diagnosis.json"):
        figure = diagnosis_figure(folder / "diagnosis.png", reports, max_risk, title, command)
        run.say(f"figure: {figure}")
    return reports


def make_roll(run: Run, config: FarlConfig, method: Method, length: int) -> Any:
    """Build a jitted roll(learnt, key) -> Transition [length, N] of `method` with the gate off.

    N is the run's number of training environments, or of evaluation's if those are more.
    """
    env = run.online_env(max(config.online.num_envs, config.online.eval_episodes))
    controller = behaviour.make_controller(run.networks(), config, method, explore=True)
    never = Gate.create(config.safety.horizon, config.world_model.gamma_risk, jnp.inf)

    def roll(learnt: Agent, key: jax.Array) -> Transition:
        key_reset, key_roll = jax.random.split(key)
        memory, state = behaviour.start_memory(config, method, env), env.reset(key_reset)
        return unroll(env, controller(learnt, never), memory, state, key_roll, length)[2]

    return jax.jit(roll, compiler_options=dict(env.compiler_options))


def _make_watch(run: Run, config: FarlConfig, spec: Method) -> Any:
    """Build watch(learnt, key) -> (Transition [T, N], p_i [H + 1, T, N]) without a gate.

    The decisions' risk is R_task, because only the task policy acts.
    """
    safety = dataclasses.replace(config.safety, rule="paper")
    config = dataclasses.replace(config, safety=safety)
    nets, horizon = run.networks(), config.safety.horizon
    roll = make_roll(run, config, spec, 2 * run.env(1).episode_limit)

    @jax.jit
    def imagine(learnt: Agent, obs: jax.Array, action: jax.Array) -> jax.Array:
        given = learnt.normalizer(obs), action, horizon, config.safety.hold
        return imagination.imagined_failures(nets, learnt, *given)

    def watch(learnt: Agent, key: jax.Array) -> Any:
        steps = roll(learnt, key)
        return jax.device_get((steps, imagine(learnt, steps.obs, steps.decision.task_action)))

    return watch


def _judge(run: Run, config: Any, learnt: Agent, watch: Any, max_risk: float) -> dict:
    """All measures of one pair. Every pair has the same starts and noise."""
    steps, probability = watch(learnt, run.key("diagnosis"))
    gate, done = config.safety, np.asarray(steps.done)
    gamma, steps_ahead = config.world_model.gamma_risk, gate.horizon + 1
    reach = diagnosis.reach(gamma, run.env(1).episode_limit) if gate.tail else gate.horizon
    labels, known = diagnosis.later_failures(steps.failure, done, reach)
    near = labels[:steps_ahead], known[:steps_ahead], labels[0]
    cost = steps.decision.risk
    report = lambda eps: diagnosis.gate_report(cost, labels, done, eps, gate.lead_time)
    bins = diagnosis.reliability(cost, labels, known, labels[0], gamma)
    return {
        "episodes": int(done.sum()),
        "failure_episodes": int(steps.first_failure.sum()),
        "foresight": diagnosis.foresight(probability, *near),
        "reliability": bins,
        "worst_factor": diagnosis.worst_factor(bins),
        "gate": report(max_risk),
        "thresholds": [report(eps) for eps in THRESHOLDS],
        "decoder_m": diagnosis.decoder_errors(
            run.networks().latent,
            learnt.world_model,
            learnt.normalizer,
            dataset.from_rollout(steps),
            config,
        ),
    }
