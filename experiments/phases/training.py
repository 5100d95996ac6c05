"""The host loop of runs that train together: resume, log, evaluate, save."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.errors import UserError
from experiments.phases import faults, offline
from experiments.phases.judge import Judge
from experiments.phases.result import result_row
from experiments.process import signals
from experiments.runs.provenance import check
from experiments.runs.run import Run
from experiments.runs.words import time_left
from farl_jax import devices
from farl_jax.agent import Agent
from farl_jax.config import OnlineConfig
from farl_jax.data.transitions import FOLDER, Recorder
from farl_jax.methods import METHODS, Method
from farl_jax.online import loop
from farl_jax.online.counters import summarize
from farl_jax.online.seeds import Seeds
from farl_jax.safety.gate import Gate
from farl_jax.safety.risk_critic import RiskData
from farl_jax.storage import checkpoint
from farl_jax.storage.metrics import FILE, MetricsWriter, OnlineRow, read_metrics
from farl_jax.storage.saver import Part, Saver
from farl_jax.world_model.windows import Windows

LOG_UPDATES = 10


@dataclass(frozen=True)
class Training:
    """Runs of one method that train together. Each run is one seed here."""

    runs: list[Run]
    method: str
    phase: loop.OnlinePhase  # lifted over the seeds
    frozen: Agent  # joined, like all below
    gate: Gate
    rehearsal: tuple[int, Windows | RiskData | None]
    judge: Judge
    sources: list[dict[str, str]]  # of each run: SHA-256 of its start
    recorders: tuple[Recorder, ...] = ()  # of each run, or none

    @property
    def seeds(self) -> Seeds:
        """The seeds axis of their arrays."""
        return Seeds(len(self.runs))

    @property
    def spec(self) -> Method:
        """The method's parts."""
        return METHODS[self.method]

    @property
    def config(self) -> OnlineConfig:
        """Online settings, the same for all runs."""
        return self.runs[0].settings.config.online

    def folder(self, run: Run) -> Path:
        """Folder of the method's files of one run."""
        return run.path / self.method

    def evaluate(
        self, key: str, learnt: Agent, gate: Gate, *, final: bool = False
    ) -> list[dict[str, float]]:
        """Evaluate all seeds, each on its own key of this name."""
        ask = self.judge.many if final else self.judge
        return ask(self.spec, self.seeds, [run.key(key) for run in self.runs], learnt, gate)


def restore(
    training: Training, state: Any, writers: list[MetricsWriter]
) -> tuple[Any, list[float]]:
    """(state of each seed's newest intact checkpoint, or the fresh one; seconds trained so far)."""
    abstract = {"state": jax.eval_shape(lambda: training.seeds.split(state)[0])}
    each = zip(training.runs, training.sources, strict=True)
    found = [_newest_state(training, *own, abstract) for own in each]
    steps = [step for step, _ in found]
    if len(set(steps)) > 1:
        seen = ", ".join(
            f"{_short(run)} at {max(step, 0):,}"
            for run, step in zip(training.runs, steps, strict=True)
        )
        raise UserError(
            f"online {training.method}: the runs stopped at different steps ({seen}); "
            "--resume without --together finishes them one by one"
        )
    seconds = [_seconds_until(training.folder(run), steps[0]) for run in training.runs]
    for writer in writers:
        writer.truncate_after("online", steps[0])
    if steps[0] < 0:
        return state, seconds
    training.runs[0].say(f"  resumed at step {steps[0]:,}")
    restored = training.seeds.join([own for _, own in found])
    return devices.place_state(restored, loop.PER_ENV, len(training.runs)), seconds


def _seconds_until(folder: Path, step: int) -> float:
    """Training seconds of a method until `step`, from its metrics."""
    rows = read_metrics(folder / FILE, OnlineRow) if step >= 0 else []
    return next((row["wall_seconds"] for row in reversed(rows) if row["step"] <= step), 0.0)


def _newest_state(
    training: Training, run: Run, sources: dict[str, str], abstract: dict[str, Any]
) -> tuple[int, Any]:
    """(step, state) of a run's newest intact checkpoint, or (-1, None) for a fresh start."""
    folder = training.folder(run) / "checkpoints"
    if not run.resume or checkpoint.latest_step(folder) is None:
        return -1, None
    step, items, about = checkpoint.restore(folder, abstract, expect=run.expect(training.method))
    check(run.settings, about, training.method, folder, sources)
    return step, items["state"]


def recorded(training: Training, state: Any) -> Training:
    """The training whose runs keep their newest online steps, if they should."""
    limit, step = training.runs[0].transitions, int(np.max(state.env_steps))
    if limit == 0:
        return training
    folders = [training.folder(run) / FOLDER for run in training.runs]
    recorders = tuple(Recorder(folder, limit, step) for folder in folders)
    inner = training.phase.collect

    def collect(*given: Any) -> Any:
        state, steps = inner(*given)
        for recorder, own in zip(
            recorders, training.seeds.split(devices.fetch(steps)), strict=True
        ):
            recorder.add(own)
        return state, steps

    phase = dataclasses.replace(training.phase, collect=collect)
    return dataclasses.replace(training, phase=phase, recorders=recorders)


def train(
    training: Training,
    state: Any,
    writers: list[MetricsWriter],
    saver: Saver,
    seconds: list[float],
) -> tuple[Any, list[float], dict[int, UserError]]:
    """Train to the end; see `_train`. A run whose own environment fails is saved first."""
    with faults.HostGuard(training.runs[0], partial(_save_alone, training, saver)) as guard:
        return _train(training, state, writers, saver, seconds, guard)


def _train(
    training: Training,
    state: Any,
    writers: list[MetricsWriter],
    saver: Saver,
    seconds: list[float],
    guard: faults.HostGuard,
) -> tuple[Any, list[float], dict[int, UserError]]:
    """The host loop: log, evaluate, save. Evaluation time is not training time.

    Seeds that train together divide the time. If one fails, it stops writing and the others
    continue. Every checkpoint ends a row of metrics, so a resumed run writes the same rows.
    """
    config, phase, seeds, runs = training.config, training.phase, training.seeds, training.runs
    budget = phase.budget
    every = lambda steps: max(1, steps // phase.steps_per_update)
    before, updates = seeds.split(devices.fetch(state.counters)), []
    rows, trouble = [{} for _ in runs], {}
    done = budget.progress(state)
    if done.updates == 0:
        rows = _judged(training, state)
        for writer, row in zip(writers, rows, strict=True):
            writer.write(0, row | {"failure_episodes": 0, "wall_seconds": 0.0}, "online")
    each = zip(runs, training.sources, strict=True)
    metadata = [offline.run_metadata(run, training.method, own) for run, own in each]
    started = time.perf_counter()
    given = training.frozen, training.gate, config.env_steps, training.rehearsal
    run_on = guard.watch(loop.train(phase, state, *given))
    for state, metrics in run_on:
        updates.append(metrics)
        done = budget.after(done, state)
        number, step = done.updates, done.steps
        last, stop = budget.spent(done, config.env_steps), signals.requested()
        due = number % every(config.eval_every) == 0 or last
        saving = number % every(config.checkpoint_every) == 0 or last or stop
        if due or saving or number % LOG_UPDATES == 0:
            sound = seeds.split(devices.fetch(seeds.lift(loop.sound)(state)))
            now = seeds.split(devices.fetch((state.counters, updates)))
            values = [summarize(*own) for own in _since(before, now)]
            spent, started = time.perf_counter() - started, time.perf_counter()
            seconds = [s + spent / len(runs) for s in seconds]
            faults.note(runs, training.method, values, sound, step, saver, trouble)
            if due:
                rows = _judged(training, state)
                started = time.perf_counter()
            for i in _going(runs, trouble):
                values[i] |= (rows[i] if due else {}) | {"wall_seconds": round(seconds[i], 2)}
                writers[i].write(step, values[i], "online")
                which = f" {_short(runs[i])}" if len(runs) > 1 else ""
                told = _progress(step, values[i], rows[i], config)
                runs[i].say(told, about=training.method + which)
            before, updates = [counters for counters, _ in now], []
        if saving:
            scores = [row["eval_return"] if due else None for row in rows]
            _save(training, saver, step, state, metadata, scores, _going(runs, trouble))
        if stop:
            saver.wait()
            raise signals.Stopped(f"saved at step {step:,}")
    return state, seconds, trouble


def _save_alone(training: Training, saver: Saver, step: int, state: Any) -> None:
    """Save a run's state outside the loop, unless this step is saved already; then wait for it."""
    saver.wait()
    run, sources = training.runs[0], training.sources[0]
    if checkpoint.latest_step(training.folder(run) / "checkpoints") != step:
        metadata = offline.run_metadata(run, training.method, sources)
        _save(training, saver, step, state, [metadata], [None], [0])
        saver.wait()


def _save(
    training: Training,
    saver: Saver,
    step: int,
    state: Any,
    metadata: list[Any],
    scores: list[Any],
    going: list[int],
) -> None:
    """Save the runs that have not failed: kept steps first, as --resume goes on after them."""
    for i in going if training.recorders else ():
        training.recorders[i].write(step)
    saver.save(step, _parts(training, state, metadata, scores, going))


def _parts(
    training: Training, state: Any, metadata: list[Any], scores: list[Any], going: list[int]
) -> list[Part]:
    """Checkpoint parts of the runs that have not failed."""
    folders = map(training.folder, training.runs)
    states = devices.gather(training.seeds.split(state))
    parts = [
        Part(folder / "checkpoints", {"state": own}, about, score)
        for folder, own, about, score in zip(folders, states, metadata, scores, strict=True)
    ]
    return [parts[i] for i in going]


def _judged(training: Training, state: loop.OnlineState) -> list[dict[str, float]]:
    """Each seed's point of the learning curve."""
    learnt, gate = loop.current(state, training.frozen), _gate_now(training, state)
    scores = training.evaluate("learning_curve_evaluation", learnt, gate)
    return [{"eval_return": s["normalized_return"], "eval_success": s["success"]} for s in scores]


def _gate_now(training: Training, state: loop.OnlineState) -> Gate:
    """The gates of all seeds with their current eps_safe."""
    safety = training.runs[0].settings.config.safety
    adapted = training.seeds.lift(lambda gate, drift: gate.adapted(drift, safety))
    return adapted(training.gate, state.drift)


def _since(before: list[Any], now: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Each seed's (counters, counters before, updates)."""
    for past, (counters, updates) in zip(before, now, strict=True):
        yield counters, past, updates


def _going(runs: list[Run], trouble: dict[int, UserError]) -> list[int]:
    return [i for i in range(len(runs)) if i not in trouble]


def _short(run: Run) -> str:
    """A run's short name: its folder and the folder above."""
    return f"{run.path.parent.name}/{run.path.name}"


def _progress(step: int, values: dict, row: dict, config: OnlineConfig) -> str:
    share, rate = values["recovered_steps"] / step, step / max(values["wall_seconds"], 1e-9)
    each = step / max(values["episodes"], 1.0)
    last = config.env_steps
    last = last if config.episodes is None else min(last, config.episodes * each)
    diverged = f"  diverged {values['diverged']:.0f}" if values["diverged"] else ""
    return (
        f"step {step:>9,}  {rate:>6,.0f}/s"
        f"  failures {values['failure_episodes']:.0f} of {values['episodes']:.0f}{diverged}"
        f"  recovering {100 * share:.1f} %  return {row.get('eval_return', float('nan')):.0f}"
        f"  success {row.get('eval_success', float('nan')):.2f}"
        f"  {time_left((last - step) / rate) if step < last else 'done'}"
    )


def final_rows(training: Training, state: loop.OnlineState) -> list[dict[str, Any]]:
    """Each run's row: its training, and its first and last policy on held-out keys."""
    seeds, gated = training.seeds, training.spec.gated
    gate = _gate_now(training, state)
    now = loop.current(state, training.frozen)
    judged = partial(training.evaluate, "final_evaluation", final=True)
    first, last = judged(training.frozen, training.gate), judged(now, gate)
    bare = judged(now, gate.off()) if gated else last
    scores = zip(first, last, bare, strict=True)
    states, gates = devices.gather((seeds.split(state), seeds.split(gate)))
    own = zip(training.runs, states, gates, scores, strict=True)
    return [result_row(run, training.method, *parts) for run, *parts in own]
