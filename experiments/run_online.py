"""The online command: fine-tune by any method, from the one offline checkpoint."""

import time
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from experiments import collect_demos, run_offline
from experiments.run import Run
from experiments.runtime import UserError, read_json, write_json
from farl_jax import checkpoint, costs, evaluate, offline, online
from farl_jax.config import FarlConfig
from farl_jax.constrained import ConstrainedLearners
from farl_jax.methods import MAIN, METHODS, Method
from farl_jax.metrics import MetricsWriter, read_metrics
from farl_jax.risk_critic import RiskData
from farl_jax.safety import ALARMS, Gate
from farl_jax.types import OfflineResult, Params
from farl_jax.world_model import Windows

LOG_UPDATES = 10


@dataclass(frozen=True)
class Judge:
    """Evaluation of a policy as it would be deployed, on `eval_episodes` environments.

    Deterministic actions, behind the method's gate; `gate.off()` is one that never acts. One
    program for each pair of gate and recovery, compiled when first asked for; a method without a
    gate shares FARL's.
    """

    run: Run
    config: FarlConfig
    programs: dict[tuple[str, str], Any] = field(default_factory=dict)

    def _program(self, method: Method) -> Any:
        kind = method.gate, method.recovery
        if kind not in self.programs:
            env, nets = self.run.env(self.config.online.eval_episodes), self.run.networks()
            controller = online.make_controller(nets, self.config, method, explore=False)

            def controller_of(learnt, gate):
                memory = online.start_memory(self.config, method, env)
                return memory, controller(learnt, gate)

            self.programs[kind] = evaluate.make_evaluate(env, controller_of)
        return self.programs[kind]

    def __call__(
        self, method: Method, key: jax.Array, learnt: OfflineResult, gate: Gate
    ) -> dict[str, float]:
        """One batch of episodes."""
        if not method.gated:
            method, gate = METHODS["farl"], gate.off()
        judged = self._program(method)(key, learnt, gate)
        return {k: float(v) for k, v in jax.device_get(judged).items()}

    def many(self, method: Method, key: jax.Array, *args: Any) -> dict[str, float]:
        """`final_episodes` in batches, averaged; normalized return's error shrinks accordingly."""
        rounds = max(1, self.config.online.final_episodes // self.config.online.eval_episodes)
        rows = [self(method, k, *args) for k in jax.random.split(key, rounds)]
        means = {k: sum(row[k] for row in rows) / len(rows) for k in rows[0]}
        means["normalized_return_se"] /= len(rows) ** 0.5
        return means


def find_method(name: str) -> Method:
    """The method of this name."""
    if name not in METHODS:
        raise UserError(f"unknown method {name!r}: choose one of {', '.join(METHODS)}")
    return METHODS[name]


def make_gate(config: FarlConfig, frozen: OfflineResult, method: Method) -> Gate:
    """The run's (H, gamma_risk, eps_safe); eps_safe is the calibrated one unless configured.

    A risk critic has an eps of its own.
    """
    chosen = config.risk_critic.max_risk if method.gate == "critic" else config.safety.max_risk
    max_risk = float(frozen.calibration.max_risk) if chosen is None else chosen
    return Gate.create(config.safety.horizon, config.safety.gamma_risk, max_risk)


def fine_tune(run: Run, method: str, judge: Judge | None = None) -> dict[str, Any]:
    """Train to the end, evaluate on keys no training saw, and write `<run>/<method>/result.json`.

    One `judge` for all methods and seeds of a process compiles its programs once.
    """
    config, parts = run.settings.config, find_method(method)
    folder = run.path / method
    result_file = folder / "result.json"
    if run.resume and result_file.is_file():
        run.say(f"online {method}: found")
        return read_json(result_file)
    frozen = run_offline.start_of(run, parts, afresh=not run.resume)
    gate = make_gate(config, frozen, parts)
    env = run.env(config.online.num_envs)
    phase = online.make_online(env, run.networks(), config, parts)
    judge = judge or Judge(run, config)
    run.say(f"online {method}: {config.online.env_steps:,} steps")
    cost_value = _cost_value(run, frozen) if parts.constrained else None
    state = phase.init(frozen, run.key("online"), cost_value)
    with MetricsWriter(folder) as writer:
        state, seconds = _restore(run, method, state, writer)
        state, seconds = _train(run, method, phase, state, frozen, gate, judge, writer, seconds)
    result = _final(run, method, state, frozen, gate, judge) | {"wall_seconds": round(seconds, 1)}
    write_json(result_file, result)
    return result


def all_phases(run: Run, judge: Judge, methods: tuple[str, ...] = MAIN) -> list[dict[str, Any]]:
    """Demonstrations, offline phase, and the methods from it; their rows."""
    run_offline.demos(run)
    run_offline.fit(run)
    return [fine_tune(run, method, judge) for method in methods]


def newest(run: Run, method: str, frozen: OfflineResult) -> tuple[int, OfflineResult]:
    """(online step, `frozen` with task policy and what its gate asks of the newest checkpoint)."""
    folder = run.path / method / "checkpoints"
    if checkpoint.latest_step(folder) is None:
        return 0, frozen
    env = run.env(run.settings.config.online.num_envs)
    phase = online.make_online(env, run.networks(), run.settings.config, find_method(method))
    # V_C has V's network
    abstract = {"state": jax.eval_shape(phase.init, frozen, run.key("online"), frozen.value)}
    step, items, _ = checkpoint.restore(folder, abstract, expect=run.expect(method))
    return step, online.current(items["state"], frozen)


def _restore(run: Run, method: str, state: Any, writer: MetricsWriter) -> tuple[Any, float]:
    """The newest intact checkpoint of this method, or the fresh state."""
    folder = run.path / method / "checkpoints"
    if not run.resume or checkpoint.latest_step(folder) is None:
        writer.truncate_after("online", -1)
        return state, 0.0
    abstract = {"state": jax.eval_shape(lambda: state)}
    step, items, _ = checkpoint.restore(folder, abstract, expect=run.expect(method))
    writer.truncate_after("online", step)
    rows = [r for r in read_metrics(run.path / method / "metrics.jsonl") if r["step"] <= step]
    run.say(f"  resumed at step {step:,}")
    return items["state"], rows[-1]["wall_seconds"] if rows else 0.0


def _train(run, method, phase, state, frozen, gate, judge, writer, seconds):
    """The host loop: log, evaluate, save. Evaluation time does not count as training time."""
    config, parts = run.settings.config.online, METHODS[method]
    key_eval = run.key("learning_curve_evaluation")
    every = lambda steps: max(1, steps // phase.steps_per_update)
    before, updates, row = jax.device_get(state.counters), [], {}
    number = int(state.env_steps) // phase.steps_per_update

    def judged(state: online.OnlineState) -> dict[str, float]:
        scores = judge(parts, key_eval, online.current(state, frozen), gate)
        names = {"normalized_return": "eval_return", "success": "eval_success"}
        return {names[k]: scores[k] for k in names}

    if number == 0:
        row = judged(state)
        writer.write(0, row | {"failure_episodes": 0, "wall_seconds": 0.0}, "online")
    started = time.perf_counter()
    adaptation = _rehearsal(run, frozen, parts) if phase.adapt is not None else (0, None)
    run_on = online.train(phase, state, frozen, gate, config.env_steps, adaptation)
    for state, metrics in run_on:
        number += 1
        updates.append(metrics)
        step = number * phase.steps_per_update
        last = step >= config.env_steps
        due = number % every(config.eval_every) == 0 or last
        if due or number % LOG_UPDATES == 0:
            values = online.summarize(state.counters, before, updates)
            seconds, started = seconds + time.perf_counter() - started, time.perf_counter()
            _stop_on_trouble(values, step)
            if due:
                row = judged(state)
                started = time.perf_counter()
            values |= (row if due else {}) | {"wall_seconds": round(seconds, 2)}
            writer.write(step, values, "online")
            run.say(_progress(method, step, values, row))
            before, updates = jax.device_get(state.counters), []
        if number % every(config.checkpoint_every) == 0 or last:
            folder = run.path / method / "checkpoints"
            checkpoint.save(folder, step, {"state": state}, run_offline.run_metadata(run, method))
    return state, seconds


def _rehearsal(run: Run, frozen: OfflineResult, method: Method) -> tuple[int, Windows | RiskData]:
    """How often what the gate asks goes on learning, and the demonstrations that it rehearses."""
    config, demos = run.settings.config, collect_demos.read(run.path / "demos", run.task_name)
    if method.gate == "critic":
        return config.risk_critic.every, offline.risk_rehearsal(demos, frozen.normalizer)
    return config.adaptation.every, offline.rehearsal(demos, frozen.normalizer, config)


def _cost_value(run: Run, frozen: OfflineResult) -> Params:
    """V_C of the demonstrations, from which the constrained methods go on."""
    demos, net = collect_demos.read(run.path / "demos", run.task_name), run.networks().value
    config, started = run.settings.config.constraint, time.perf_counter()
    key = run.key("cost_critic")
    params, error = costs.fit_offline(net, demos, frozen.normalizer, config, key)
    run.say(f"  cost critic: error {error:.3g}  {time.perf_counter() - started:.1f} s")
    return params


def _stop_on_trouble(values: dict[str, float], step: int) -> None:
    if values["diverged"] > 0:
        raise UserError(
            f"physics diverged in {values['diverged']:.0f} episodes by step {step}: "
            "the simulation is not to be trusted; go back to the default scene and action limits"
        )
    bad = [name for name, value in values.items() if not jnp.isfinite(value)]
    if bad:
        raise UserError(
            f"{bad[0]} is not finite at step {step}: lower online.actor_learning_rate; "
            "the last checkpoint is intact, --resume continues from it"
        )


def _progress(method: str, step: int, values: dict[str, float], row: dict[str, float]) -> str:
    share, rate = values["recovered_steps"] / step, step / max(values["wall_seconds"], 1e-9)
    return (
        f"  [dim]{method}[/dim] step {step:>9,}  {rate:>6,.0f}/s"
        f"  failures {values['failure_episodes']:.0f} of {values['episodes']:.0f}"
        f"  recovering {100 * share:.1f} %  return {row.get('eval_return', float('nan')):.0f}"
        f"  success {row.get('eval_success', float('nan')):.2f}"
    )


def _final(run, method, state, frozen, gate, judge) -> dict[str, Any]:
    """The run's row: totals of training, and first and last policy on held-out keys, both ways."""
    totals = online.summarize(state.counters, None, [])
    key, parts = run.key("final_evaluation"), METHODS[method]
    now, gated = online.current(state, frozen), parts.gated
    first = judge.many(parts, key, frozen, gate)
    last = judge.many(parts, key, now, gate)
    bare = judge.many(parts, key, now, gate.off()) if gated else last
    names = ("episodes", "failure_episodes", "failing_steps", "recovered_steps", "successes")
    return {
        "task": run.settings.task,
        "method": method,
        "seed": run.settings.seed,
        "preset": run.settings.preset,
        "online_steps": int(state.env_steps),
        **{name: int(totals[name]) for name in names},
        "causes": {name: int(totals[name]) for name in ALARMS} if gated else None,
        "initial_return": first["normalized_return"],
        "final_return": last["normalized_return"],
        "final_return_se": last["normalized_return_se"],
        "initial_success": first["success"],
        "final_success": last["success"],
        "final_failure_rate": last["failure_episodes"],
        "final_return_without_gate": bare["normalized_return"],
        "final_success_without_gate": bare["success"],
        "max_risk": float(gate.max_risk) if gated else None,
        **_constraint(run, state),
        "backend": run.env(1).backend,
    }


def _constraint(run: Run, state: online.OnlineState) -> dict[str, float]:
    """What a constrained method's row says besides: its limit, and J_C at the end."""
    if not isinstance(state.learners, ConstrainedLearners):
        return {}
    limit = run.settings.config.constraint.limit
    return {
        "cost_limit": limit,
        "cost_rate": float(state.learners.costs.rate.estimate(limit)),
    }
