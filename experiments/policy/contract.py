"""The contract (`farl_jax.deploy`) of a run's policy: what its user must know."""

import dataclasses
from typing import Any

from envs_mjx.channels import Channel, channels_of
from experiments.process.machine import describe_environment
from farl_jax.agent import Agent
from farl_jax.config import FarlConfig
from farl_jax.deploy import FORMAT, Contract, GateTerms, Variable, digest
from farl_jax.deploy import Channel as Entry
from farl_jax.methods import Method, find_method
from farl_jax.safety.gate import Gate
from farl_jax.storage.leaves import digest as digest_of

RISKS = {
    "world_model": "risk R of the world model",
    "backup": "the world model's risk of the recovery policy",
    "critic": "Q_risk of the risk critic",
}
RECOVERIES = {
    "policy": "the learnt recovery policy",
    "mppi": "a plan through the world model",
    "zero": "no movement",
}


def make_contract(
    env: Any,
    config: FarlConfig,
    method: str,
    newest: tuple[int, Agent, Gate],
    memory: list[Variable],
) -> Contract:
    """Return the contract of `method`'s policy on `env`, still without files.

    `newest` is (online steps, networks, gate).
    """
    (step, learnt, gate), spec = newest, find_method(method)
    channels, about = channels_of(env), describe_environment()
    git = about["git"] or {"commit": None, "dirty": None}
    contract: Contract = {
        "format": FORMAT,
        "task": env.name,
        "method": method,
        "step": step,
        "observation": [_entry(channel) for channel in channels.observation],
        "action": [_entry(channel) for channel in channels.action],
        "rate_hz": channels.rate_hz,
        "gate": _gate_terms(spec, config, gate),
        "memory": memory,
        "files": {},
        "weights_sha256": digest_of(learnt),
        "versions": about["packages"] | {"python": about["python"]},
        "commit": git["commit"],
        "dirty": git["dirty"],
        "sha256": "",
    }
    return signed(contract)


def signed(contract: Contract) -> Contract:
    """Return the contract with the hash of its content."""
    return {**contract, "sha256": digest(contract)}


def _entry(channel: Channel) -> Entry:
    return {"name": channel.name, "unit": channel.unit, "low": channel.low, "high": channel.high}


def _gate_terms(method: Method, config: FarlConfig, gate: Gate) -> GateTerms | None:
    if not method.gated:
        return None
    group = config.safety if method.models else config.risk_critic
    return {
        "risk": RISKS[method.gate],
        "recovery": RECOVERIES[method.recovery],
        "eps_safe": float(gate.max_risk),
        "horizon": int(gate.horizon) if method.gate == "world_model" else None,
        "settings": dataclasses.asdict(config.safety) | dataclasses.asdict(group),
    }
