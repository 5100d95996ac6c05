"""A run as a read-only Python object, for notebooks and scripts."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.errors import UserError
from experiments.phases import offline
from experiments.phases.newest import newest
from experiments.policy.contract import make_contract
from experiments.runs.files import RESULT, read_curve
from experiments.runs.presets import RunSettings
from experiments.runs.provenance import read_result
from experiments.runs.run import Run, read_run
from farl_jax.agent import Agent
from farl_jax.decision import Decide, make_decide
from farl_jax.deploy import Contract, SafePolicy
from farl_jax.methods import METHODS, find_method
from farl_jax.safety.gate import Gate
from farl_jax.storage import checkpoint

Newest = tuple[int, Agent, Gate]
"""(online step, networks, gate) of a checkpoint."""


@dataclass(frozen=True)
class TrainedRun:
    """The content of a run's folder, read on demand. Get one from `experiments.load_run`."""

    run: Run
    found: dict[str, Newest] = field(default_factory=dict, repr=False)

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.run.path

    @property
    def settings(self) -> RunSettings:
        """Task, preset, seed, backend and every number of the method."""
        return self.run.settings

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The result of every finished method, as in its result.json."""
        done = (name for name in METHODS if (self.path / name / RESULT).exists())
        return [read_result(self.path, self.settings, name) for name in done]

    def curve(self, method: str = "farl") -> list[dict[str, Any]]:
        """The rows of a method's online phase, oldest first, as in its metrics.jsonl."""
        find_method(method)
        return read_curve(self.path / method)

    def newest(self, method: str = "farl") -> Newest:
        """(online step, networks, gate) of the newest checkpoint; the offline phase's step is 0."""
        if method not in self.found:
            spec = find_method(method)
            critic = self.path / "risk_critic"
            if spec.gate == "critic" and checkpoint.latest_step(critic) is None:
                raise UserError(
                    f"{self.path} has no risk critic yet: farl online {self.path} --method {method}"
                )
            self.found[method] = newest(self.run, method, offline.start_of(self.run, spec))
        return self.found[method]

    def policy(self, obs: Any, method: str = "farl") -> np.ndarray:
        """The task policy's mean action, without a gate: obs [..., D] -> action [..., A]."""
        size = self.run.networks().sizes[0]
        obs = np.asarray(obs, np.float32)
        if obs.shape[-1:] != (size,):
            raise UserError(f"obs must have {size} numbers on its last axis; got shape {obs.shape}")
        learnt = self.newest(method)[1]
        nets = self.run.networks()
        return np.asarray(nets.policy.apply(learnt.policy, learnt.normalizer(jnp.asarray(obs)))[0])

    def decide(self, method: str = "farl") -> Decide:
        """The whole decision of a method, not yet traced; `farl export` writes it."""
        _, learnt, gate = self.newest(method)
        nets, config = self.run.networks(), self.settings.config
        return make_decide(nets, config, find_method(method), learnt, gate)

    def safe_policy(self, method: str = "farl") -> SafePolicy:
        """The policy behind its gate, as in evaluation; it acts like an exported one."""
        decide = self.decide(method)
        return SafePolicy(self.contract(method, decide), jax.jit(decide.program))

    def contract(self, method: str, decide: Decide) -> Contract:
        """The contract of `decide`, without files."""
        env, config = self.run.env(1), self.settings.config
        return make_contract(env, config, method, self.newest(method), decide.memory)


def load_run(path: Path | str, task: str | None = None) -> TrainedRun:
    """Return the run in a folder; give `task` again if it is your own code (module:Class).

    Raises:
        UserError, SchemaError: there is no run, or its settings cannot be read; one line.
    """
    return TrainedRun(read_run(Path(path), task))
