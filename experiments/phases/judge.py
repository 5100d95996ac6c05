"""Evaluation during and after the online phase, of policies as they would be deployed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from experiments.runs.run import Run
from farl_jax import devices
from farl_jax.agent import Agent
from farl_jax.config import FarlConfig
from farl_jax.measure import evaluate
from farl_jax.methods import METHODS, Method
from farl_jax.online.seeds import Seeds
from farl_jax.safety import behaviour
from farl_jax.safety.gate import Gate


@dataclass(frozen=True)
class Judge:
    """Evaluation of a policy as it would be deployed, on `eval_episodes` environments.

    Actions are deterministic, with the method's gate. `gate.off()` never triggers. Each pair of
    gate and recovery has one program, compiled at its first use. A method without a gate uses
    FARL's.
    """

    run: Run
    config: FarlConfig
    programs: dict[tuple[Any, ...], Any] = field(default_factory=dict)

    def on(self, run: Run) -> "Judge":
        """The judge of another run that differs in seed only. They share compiled programs."""
        return replace(self, run=run)

    def program(self, method: Method) -> Any:
        """Return `evaluate(key, learnt, gate)` of one seed, compiled at its first call."""
        if not method.gated:
            method = METHODS["farl"]
        kind = method.gate, method.recovery, self.run.shift  # another robot, another program
        if kind not in self.programs:
            env, nets = self.run.online_env(self.config.online.eval_episodes), self.run.networks()
            controller = behaviour.make_controller(nets, self.config, method, explore=False)

            def controller_of(learnt, gate):
                memory = behaviour.start_memory(self.config, method, env)
                return memory, controller(learnt, gate)

            self.programs[kind] = evaluate.make_evaluate(env, controller_of)
        return self.programs[kind]

    def __call__(
        self, method: Method, seeds: Seeds, keys: list[jax.Array], learnt: Agent, gate: Gate
    ) -> list[dict[str, float]]:
        """Evaluate one batch of episodes of each seed. `learnt` and `gate` are joined."""
        if not method.gated:
            gate = gate.off()
        judged = seeds.lift(self.program(method))(seeds.join(keys), learnt, gate)
        rows = seeds.split(devices.fetch(judged))
        return [{k: float(v) for k, v in row.items()} for row in rows]

    def many(
        self, method: Method, seeds: Seeds, keys: list[jax.Array], *args: Any
    ) -> list[dict[str, float]]:
        """Evaluate `final_episodes` in batches, and average. Standard errors shrink accordingly."""
        rounds = max(1, self.config.online.final_episodes // self.config.online.eval_episodes)
        each = zip(*(jax.random.split(key, rounds) for key in keys), strict=True)
        batches = [self(method, seeds, list(some), *args) for some in each]
        return [_average(rows) for rows in zip(*batches, strict=True)]


def _average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    means = {k: sum(row[k] for row in rows) / len(rows) for k in rows[0]}
    means["normalized_return_se"] /= len(rows) ** 0.5
    return means
