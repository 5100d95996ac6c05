"""The newest policy of a run, from its checkpoint."""

import jax

from experiments.runs.provenance import check, sources_of
from experiments.runs.run import Run
from farl_jax.agent import Agent
from farl_jax.methods import find_method
from farl_jax.online import loop
from farl_jax.safety.behaviour import make_gate
from farl_jax.safety.gate import Gate
from farl_jax.storage import checkpoint


def newest(run: Run, method: str, frozen: Agent) -> tuple[int, Agent, Gate]:
    """(online step, `frozen` updated from the newest checkpoint, its gate)."""
    folder, spec = run.path / method / "checkpoints", find_method(method)
    gate = make_gate(run.settings.config, frozen, spec)
    if checkpoint.latest_step(folder) is None:
        return 0, frozen, gate
    env = run.online_env(run.settings.config.online.num_envs)
    phase = loop.make_online(env, run.networks(), run.settings.config, spec)
    # V_C has V's network
    abstract = {"state": jax.eval_shape(phase.init, frozen, run.key("online"), frozen.value)}
    step, items, about = checkpoint.restore(folder, abstract, expect=run.expect(method))
    check(run.settings, about, method, folder, sources_of(frozen, spec))
    state = items["state"]
    gate = gate.adapted(state.drift, run.settings.config.safety)
    return step, loop.current(state, frozen), gate
