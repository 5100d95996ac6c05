"""The offline commands: demonstrations, and from them the offline checkpoint."""

import time
from typing import Any

from experiments import collect_demos
from experiments.presets import PROTOCOL
from experiments.run import Run, reporter
from experiments.runtime import describe_environment
from farl_jax import checkpoint, offline
from farl_jax.dataset import load_dataset
from farl_jax.methods import Method
from farl_jax.metrics import MetricsWriter
from farl_jax.types import OfflineResult


def demos(run: Run) -> None:
    """Write all demonstrations into `<run>/demos`, unless the folder already holds good ones."""
    folder, settings = run.path / "demos", run.settings
    if run.resume and all((folder / f"{kind}.npz").is_file() for kind in collect_demos.KINDS):
        for kind in collect_demos.KINDS:
            load_dataset(folder / f"{kind}.npz", task=run.task_name)
        run.say("demonstrations: found")
        return
    started = time.perf_counter()
    run.say(f"demonstrations: {settings.task}")
    env = run.env(1).env
    counts = collect_demos.write(folder, env, settings.config.demos, run.key("demos"))
    for kind, counted in counts.items():
        run.say(f"  {kind}: " + "  ".join(f"{k} {v}" for k, v in counted.items()))
    run.say(f"  {time.perf_counter() - started:.1f} s")


def fit(run: Run) -> None:
    """Learn everything offline and save it as `<run>/offline/0`."""
    if run.resume and checkpoint.latest_step(run.path / "offline") is not None:
        run.offline_result()  # a damaged or foreign one stops here, in one line
        run.say("offline checkpoint: found")
        return
    started = time.perf_counter()
    run.say("offline phase")
    data = collect_demos.read(run.path / "demos", run.task_name)
    env = run.env(run.settings.config.demos.num_envs)
    with MetricsWriter(run.path) as writer:
        writer.truncate_after("offline", -1)
        report = reporter(run, writer, "offline")
        result = offline.run_offline(env, data, run.settings.config, run.key("offline"), report)
    seconds = time.perf_counter() - started
    checkpoint.save(run.path / "offline", 0, {"result": result}, run_metadata(run, "offline"))
    run.say(f"  saved {run.path / 'offline'}  {seconds:.1f} s")


def start_of(run: Run, method: Method, *, afresh: bool = False) -> OfflineResult:
    """The offline checkpoint, with the risk critic where the method gates by one.

    The critic is `<run>/risk_critic/0`; it is fitted where there is none, or `afresh`.
    """
    frozen = run.offline_result()
    if method.gate != "critic":
        return frozen
    folder, nets = run.path / "risk_critic", run.networks()
    if not afresh and checkpoint.latest_step(folder) is not None:
        abstract = {"params": nets.abstract_risk_critic()}
        _, items, _ = checkpoint.restore(folder, abstract, expect=run.expect("risk_critic"))
        return frozen.replace(risk_critic=items["params"])
    started, config = time.perf_counter(), run.settings.config
    run.say("risk critic")
    data = collect_demos.read(run.path / "demos", run.task_name)
    env = run.env(config.demos.num_envs)
    with MetricsWriter(run.path) as writer:
        writer.truncate_after("risk_critic", -1)
        report = reporter(run, writer, "risk_critic")
        key = run.key("risk_critic")
        params = offline.fit_risk_critic(env, data, frozen, config, key, report)
    checkpoint.save(folder, 0, {"params": params}, run_metadata(run, "risk_critic"))
    run.say(f"  saved {folder}  {time.perf_counter() - started:.1f} s")
    return frozen.replace(risk_critic=params)


def run_metadata(run: Run, kind: str) -> dict[str, Any]:
    """What a checkpoint says about itself."""
    return {
        "kind": kind,
        "task": run.settings.task,
        "protocol": PROTOCOL,
        "settings": run.settings.to_json(),
        "environment": describe_environment(),
    }
