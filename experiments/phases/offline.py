"""The offline commands: demonstrations and the offline checkpoint."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from types import MappingProxyType
from typing import Any

from experiments.errors import UserError
from experiments.phases import demos as collect_demos
from experiments.process.machine import describe_environment
from experiments.runs.begin import DEMOS, OFFLINE, begin
from experiments.runs.presets import PROTOCOL
from experiments.runs.provenance import check, demo_sources, sources_of
from experiments.runs.run import Run, reporter
from experiments.runs.words import counts_words
from farl_jax.agent import Agent
from farl_jax.data.dataset import Dataset
from farl_jax.data.practice import Practice
from farl_jax.methods import Method
from farl_jax.nn.training import finite
from farl_jax.offline import pipeline
from farl_jax.safety import risk_critic
from farl_jax.safety.risk_critic import RiskData
from farl_jax.schema import check as check_type
from farl_jax.storage import checkpoint
from farl_jax.types import Params
from farl_jax.updates import costs
from farl_jax.world_model import adaptation
from farl_jax.world_model.windows import Windows


def demos(run: Run) -> None:
    """Write all demonstrations into `<run>/demos`, unless valid ones are there."""
    folder, settings = run.path / "demos", run.settings
    begin(run, DEMOS)
    if run.resume and all((folder / f"{kind}.npz").is_file() for kind in collect_demos.KINDS):
        read_demos(run)
        run.say("demonstrations: found")
        return
    started = time.perf_counter()
    run.say(f"demonstrations: {settings.task}")
    env, config = run.env(1).env, settings.config.demos
    about: dict[str, Any] = {"settings": settings.to_json(), "backend": env.backend}
    if run.on_host:
        own = settings.config.env
        known = own.random_return, own.expert_return
        about["references"] = collect_demos.measure_references(
            env, config, run.key("references"), known
        )
        check_references(about["references"])
    counts = collect_demos.write(folder, env, config, run.key("demos"), about)
    for kind, counted in counts.items():
        run.say(f"  {counts_words(kind, counted)}")
    run.say(f"  {time.perf_counter() - started:.1f} s")


def check_references(references: tuple[float, float]) -> None:
    """Refuse random and expert returns between which nothing can be normalised."""
    random, expert = references
    if not expert > random:
        raise UserError(
            f"the expert's mean return {expert:.4g} is not above the random one's {random:.4g}: "
            "correct the expert, or give --env.random-return and --env.expert-return"
        )


def read_demos(run: Run) -> dict[str, Dataset]:
    """Read all kinds of demonstrations, and check that the offline phase used the same ones.

    Raises:
        DatasetError, UserError: missing, damaged, or different; one line.
    """
    folder, offline_folder = run.path / "demos", run.path / "offline"
    data = own_demos(run)
    if checkpoint.latest_step(offline_folder) is not None:
        about = checkpoint.read_metadata(offline_folder)
        check(run.settings, about, "offline", offline_folder, demo_sources(folder))
    return data


def own_demos(run: Run) -> dict[str, Dataset]:
    """Read all kinds of demonstrations, without comparing them with the offline phase's.

    Raises:
        DatasetError, UserError: missing, damaged, or another run's; one line.
    """
    folder, env = run.path / "demos", run.env(1)
    sizes = env.observation_size, env.action_size
    found = collect_demos.read(folder, run.task_name, sizes)
    for kind, (_, about) in found.items():
        check(run.settings, about, "demos", folder / f"{kind}.npz")
    return {kind: data for kind, (data, _) in found.items()}


def fit(run: Run) -> None:
    """Learn everything offline and save it as `<run>/offline/0`."""
    begin(run, OFFLINE)
    if run.resume and checkpoint.latest_step(run.path / "offline") is not None:
        run.offline_result()  # refuses a damaged or foreign one
        run.say("offline checkpoint: found")
        return
    started = time.perf_counter()
    run.say("offline phase")
    data, sources = read_demos(run), demo_sources(run.path / "demos")
    env = run.env(run.settings.config.demos.num_envs)
    with run.metrics(run.path) as writer:
        writer.truncate_after("offline", -1)
        report = reporter(run, writer, "offline")
        config, key = run.settings.config, run.key("offline")
        result, practice = pipeline.run_offline(env, data, config, key, report)
    seconds = time.perf_counter() - started
    if not finite(result):
        raise UserError(
            f"{run.path}: parameters after the offline phase are not finite; check the "
            "demonstrations, or lower the learning rates"
        )
    metadata = run_metadata(run, "offline", sources) | {"practice": asdict(practice)}
    checkpoint.save(run.path / "offline", 0, {"result": result}, metadata)
    run.say(f"  saved {run.path / 'offline'}  {seconds:.1f} s")


def start_of(run: Run, method: Method) -> Agent:
    """The offline checkpoint, with the risk critic if it is the method's gate.

    The critic is `<run>/risk_critic/0`. It is fitted if it is missing.
    """
    frozen = run.offline_result()
    if method.gate != "critic":
        return frozen
    folder, nets = run.path / "risk_critic", run.networks()
    sources = sources_of(frozen, method) | demo_sources(run.path / "demos")
    if checkpoint.latest_step(folder) is not None:
        abstract = {"params": nets.abstract_risk_critic()}
        _, items, about = checkpoint.restore(folder, abstract, expect=run.expect("risk_critic"))
        check(run.settings, about, "risk_critic", folder, sources)
        return frozen.replace(risk_critic=items["params"])
    started, config = time.perf_counter(), run.settings.config
    run.say("risk critic")
    data = read_demos(run)
    env = run.env(config.demos.num_envs)
    with run.metrics(run.path) as writer:
        writer.truncate_after("risk_critic", -1)
        report = reporter(run, writer, "risk_critic")
        key = run.key("risk_critic")
        params, practice = pipeline.fit_risk_critic(env, data, frozen, config, key, report)
    metadata = run_metadata(run, "risk_critic", sources) | {"practice": asdict(practice)}
    checkpoint.save(folder, 0, {"params": params}, metadata)
    run.say(f"  saved {folder}  {time.perf_counter() - started:.1f} s")
    return frozen.replace(risk_critic=params)


def practice_of(run: Run, method: Method) -> Practice | None:
    """Steps of learnt policies before the method's online phase.

    None if they are unknown: there is no checkpoint, or an older version made it.
    """
    names = ["offline"] + (["risk_critic"] if method.gate == "critic" else [])
    folders = [run.path / name for name in names]
    if any(checkpoint.latest_step(folder) is None for folder in folders):
        return None
    found = [checkpoint.read_metadata(folder).get("practice") for folder in folders]
    if None in found:
        return None
    return sum((check_type(Practice, own, "practice") for own in found), Practice())


def rehearsal_of(run: Run, frozen: Agent, method: Method) -> tuple[int, Windows | RiskData]:
    """(updates between two adaptations of the gate's model, demonstrations that it rehearses)."""
    config, demos = run.settings.config, read_demos(run)
    if method.gate == "critic":
        return config.risk_critic.every, risk_critic.risk_rehearsal(demos, frozen.normalizer)
    reward = run.env(1).success_reward
    return config.adaptation.every, adaptation.rehearsal(demos, frozen.normalizer, config, reward)


def cost_value_of(run: Run, frozen: Agent) -> Params:
    """V_C fitted to the demonstrations, the start of the constrained methods."""
    demos, net = read_demos(run), run.networks().value
    config, started = run.settings.config.constraint, time.perf_counter()
    key = run.key("cost_critic")
    params, error = costs.fit_offline(net, demos, frozen.normalizer, config, key)
    run.say(f"  cost critic: error {error:.3g}  {time.perf_counter() - started:.1f} s")
    return params


def run_metadata(
    run: Run, kind: str, sources: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Metadata of a checkpoint. `sources` are the SHA-256 of its source data."""
    return {
        "kind": kind,
        "task": run.settings.task,
        "protocol": PROTOCOL,
        "settings": run.settings.to_json(),
        "backend": run.env(1).backend,
        "sources": dict(sources),
        "environment": describe_environment(),
    }
