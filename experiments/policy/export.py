"""`farl export`: a method's whole decision as programs in a folder, with their contract.

The folder appears only after every program was loaded and agreed with the training code
(`TOLERANCE`).
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from experiments.errors import UserError, disk_errors
from experiments.policy.contract import signed
from experiments.policy.trained import TrainedRun
from farl_jax import deploy
from farl_jax.agent import Agent
from farl_jax.decision import Decide, to_onnx, to_stablehlo
from farl_jax.deploy import CONTRACT, PROGRAMS, Contract, DeployError, File, Runtime, SafePolicy
from farl_jax.storage.files import replacing

TOLERANCE = 1e-5
STEPS = 200
"""Decisions on which a program must agree with the training code."""


def export(
    trained: TrainedRun, method: str, out: Path, formats: Sequence[Runtime], rate_hz: float | None
) -> Contract:
    """Write the newest policy of `method` into `out`, a new or empty folder.

    Args:
        trained: the run.
        method: see `farl_jax.methods`.
        out: the policy's folder.
        formats: of `PROGRAMS`; none means all that can be written here. Others are reported.
        rate_hz: decisions a second; None takes the environment's.

    Raises:
        UserError: `out` is not empty.
        DeployError: a format cannot be written, or its program disagrees.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: choose another -o, or remove it")
    step, learnt, _ = trained.newest(method)
    decide, say = trained.decide(method), trained.run.say
    contract = trained.contract(method, decide)
    if rate_hz is not None:
        contract["rate_hz"] = rate_hz
    programs = make_programs(decide, f"{contract['task']}_{method}", formats, say)
    contract, apart = write(out, decide, contract, programs, typical_observations(learnt))
    for name, data in programs.items():
        say(f"{PROGRAMS[name]}: {len(data):,} bytes, largest difference {apart[name]:.1e}")
    say(f"{out}: {method} of step {step:,}, sha256 {contract['sha256']}")
    return contract


def write(
    out: Path, decide: Decide, contract: Contract, programs: dict[Runtime, bytes], obs: np.ndarray
) -> tuple[Contract, dict[Runtime, float]]:
    """Write a policy's folder, after each program agreed with `decide` on obs [T, D].

    Returns:
        The contract with its files, and each program's `difference`.
    """
    about: dict[str, File] = {
        PROGRAMS[name]: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in programs.items()
    }
    contract = signed({**contract, "files": about})
    reference = SafePolicy(contract, jax.jit(decide.program))
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with replacing(out, folder=True) as folder:
            for name, data in programs.items():
                (folder / PROGRAMS[name]).write_bytes(data)
            (folder / CONTRACT).write_text(json.dumps(contract, indent=1) + "\n", "utf-8")
            apart = {n: difference(reference, deploy.load(folder, n), obs) for n in programs}
            for name, worst in apart.items():
                _check(worst, name)
    return contract, apart


def make_programs(
    decide: Decide, name: str, formats: Sequence[Runtime], say: Callable[[str], None]
) -> dict[Runtime, bytes]:
    """Return the decision in each of `formats`; without any, in all, and `say` reports failures."""
    writers: dict[Runtime, Callable[[], bytes]] = {
        "jax": lambda: to_stablehlo(decide),
        "onnx": lambda: to_onnx(decide, name),
    }
    programs = {}
    for kind in formats or PROGRAMS:
        try:
            programs[kind] = writers[kind]()
        except DeployError as error:
            if formats:
                raise
            say(f"{PROGRAMS[kind]} is left out: {error}")
    return programs


def typical_observations(learnt: Agent, seed: int = 0) -> np.ndarray:
    """Return [STEPS, D]: normal by the normaliser's mean and deviation, held for 10 decisions."""
    mean, std = np.asarray(learnt.normalizer.mean), np.asarray(learnt.normalizer.std)
    noise = np.random.default_rng(seed).normal(size=(STEPS // 10, len(mean)))
    return np.repeat((mean + std * noise).astype(np.float32), 10, axis=0)


def difference(reference: SafePolicy, other: SafePolicy, obs: np.ndarray) -> float:
    """Return the largest difference of action, risk (above 1 relative) and memory on obs [T, D].

    Both decide from the reference's memory. Actions and memory do not count if the risk is within
    TOLERANCE of eps_safe, where rounding may decide who acts.
    """
    gate, worst, memory = reference.contract["gate"], 0.0, reference.start()
    for row in obs:
        action, after, info = reference.act(row, memory)
        other_action, other_after, other_info = other.act(row, memory)
        risk = info["risk"]
        apart = [abs(risk - other_info["risk"]) / max(1.0, risk)]
        if gate is None or abs(risk - gate["eps_safe"]) > TOLERANCE:
            apart += [np.abs(action - other_action).max()]
            apart += [np.abs(after[k] - 1.0 * other_after[k]).max() for k in after]
        worst, memory = max(worst, *apart), after
    return float(worst)


def _check(worst: float, name: Runtime) -> None:
    if not worst <= TOLERANCE:
        raise DeployError(
            f"{PROGRAMS[name]} differs from the training code by {worst:.1e}, so nothing was "
            "written: please report it"
        )
