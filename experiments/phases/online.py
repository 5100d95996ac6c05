"""The online command: fine-tune with any method, from the offline checkpoint.

Several seeds may train together, as one compiled program (`farl_jax.online.seeds`). A single run is
a list of one, and uses the plain functions.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from experiments.errors import UserError
from experiments.phases import offline
from experiments.phases.judge import Judge
from experiments.phases.together import groups
from experiments.phases.training import Training, final_rows, recorded, restore, train
from experiments.process import signals
from experiments.process.outputs import write_json
from experiments.runs import words
from experiments.runs.begin import begin
from experiments.runs.begin import online as begin_online
from experiments.runs.environment import check_sharing
from experiments.runs.files import RESULT
from experiments.runs.presets import check_method
from experiments.runs.provenance import read_result, sources_of
from experiments.runs.run import Run
from farl_jax import devices
from farl_jax.methods import MAIN, METHODS, find_method
from farl_jax.online import loop
from farl_jax.online.seeds import Seeds
from farl_jax.safety.behaviour import make_gate
from farl_jax.storage import checkpoint
from farl_jax.storage.saver import Saver

TRACED_SETTINGS = ("safety.max_risk", "risk_critic.max_risk")
"""Settings that are arguments of a compiled program. Runs may differ in them and train together."""


def fine_tune(
    runs: Sequence[Run], method: str, judge: Judge | None = None, num_devices: int = 1
) -> list[dict[str, Any]]:
    """Train to the end, evaluate on held-out keys, and write `<run>/<method>/result.json`.

    The runs may differ in seed and in `TRACED_SETTINGS` only. They train as one compiled program
    over `num_devices`, in as many groups as memory needs. Each run gets its own files and row.
    Share one `judge` among the calls of a process, so that its programs are compiled once.
    """
    spec = find_method(method)
    check_method(runs[0].settings.config, spec)
    check_sharing(runs[0].settings.task, runs[0].settings.config.online, len(runs), num_devices)
    runs = [begin(run, begin_online(method)) for run in runs]
    todo = [run for run in runs if not (run.path / method / RESULT).exists()]
    for run in runs:
        if run not in todo:
            _check_found(run, method)
            run.say(f"online {method}: found")
    if todo:
        config = runs[0].settings.config
        judge = (judge or Judge(runs[0], config)).on(runs[0])
        env = runs[0].online_env(config.online.num_envs)
        phase = loop.make_online(env, runs[0].networks(), config, spec)
        for group in groups(todo, spec, phase, judge, num_devices):
            devices.check(num_devices, len(group), config.online.num_envs)
            with devices.use(num_devices, len(group)):
                _fine_tune_group(group, method, phase, judge)
    return [read_result(run.path, run.settings, method) for run in runs]


def _check_found(run: Run, method: str) -> None:
    """Refuse a result that is damaged, or of another run or offline phase."""
    known = checkpoint.latest_step(run.path / "offline") is not None
    sources = sources_of(run.offline_result(), METHODS[method]) if known else {}
    read_result(run.path, run.settings, method, sources)


def _fine_tune_group(runs: list[Run], method: str, phase: loop.OnlinePhase, judge: Judge) -> None:
    """Train, evaluate and write the results of runs that fit into memory together."""
    config, spec, seeds = runs[0].settings.config, METHODS[method], Seeds(len(runs))
    frozen = [offline.start_of(run, spec) for run in runs]
    sources = [sources_of(own, spec) for own in frozen]
    runs[0].say(f"online {method}: {words.budget_words(config.online)}")
    each = list(zip(runs, frozen, strict=True))
    gates = [make_gate(run.settings.config, own, spec) for run, own in each]
    every, demos, cost_value = 0, None, None
    if spec.constrained:
        cost_value = seeds.join([offline.cost_value_of(*own) for own in each])
    if phase.learns_risk:
        rehearsed = [offline.rehearsal_of(*own, spec) for own in each]
        every, demos = rehearsed[0][0], seeds.join([data for _, data in rehearsed])
    phase, keys = seeds.lift_phase(phase), [run.key("online") for run in runs]
    joined, gate, keys, cost_value, demos = devices.place(
        (seeds.join(frozen), seeds.join(gates), seeds.join(keys), cost_value, demos), len(runs)
    )
    training = Training(runs, method, phase, joined, gate, (every, demos), judge, sources)
    state = phase.init(joined, keys, cost_value)
    with ExitStack() as stack:
        writers = [stack.enter_context(run.metrics(training.folder(run))) for run in runs]
        state, seconds = restore(training, state, writers)
        training = recorded(training, state)
        saver = stack.enter_context(Saver(runs[0].say))
        stack.enter_context(signals.deferred())
        state, seconds, trouble = train(training, state, writers, saver, seconds)
    for i, result in enumerate(final_rows(training, state)):
        if i not in trouble:
            made_from = {"settings": runs[i].settings.to_json(), "sources": sources[i]}
            result |= {"wall_seconds": round(seconds[i], 1), "made_from": made_from}
            write_json(training.folder(runs[i]) / RESULT, result)
            best = checkpoint.best_step(training.folder(runs[i]) / "checkpoints")
            runs[i].say(f"  best evaluation at step {best or 0:,}; its checkpoint is kept")
    for i, error in trouble.items():
        raise UserError(f"{runs[i].path}: {error}; the other runs are finished")


def all_phases(
    runs: Sequence[Run], judge: Judge, methods: Sequence[str] = MAIN, num_devices: int = 1
) -> list[list[dict[str, Any]]]:
    """Do the offline phase of each run, then all methods, and return each run's rows."""
    for run in runs:
        offline.demos(run)
        offline.fit(run)
    by_method = [fine_tune(runs, method, judge, num_devices) for method in methods]
    return [list(rows) for rows in zip(*by_method, strict=True)]
