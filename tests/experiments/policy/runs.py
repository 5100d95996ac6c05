"""A run that has learnt nothing yet: settings and an offline checkpoint, at random."""

import json
import pathlib

from experiments.phases.offline import run_metadata
from experiments.process.console import plain_console
from experiments.runs.presets import RunSettings
from experiments.runs.run import Run
from farl_jax.storage import checkpoint
from tests.deployed import CONFIG
from tests.parameters import random_agent


def write_untrained(folder: pathlib.Path) -> Run:
    settings = RunSettings("bounded_push", "smoke", 0, "native", CONFIG)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(settings.to_json()))
    run = Run(folder, settings, True, plain_console(quiet=True))
    learnt = random_agent(run.networks()).replace(risk_critic=None)
    checkpoint.save(folder / "offline", 0, {"result": learnt}, run_metadata(run, "offline"))
    return run
