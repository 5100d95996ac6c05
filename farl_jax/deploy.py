"""A safe policy as a file: load it and act with it.

    policy = load("policy/")
    memory = policy.start()
    action, memory, info = policy.act(obs, memory)

It needs NumPy, and JAX (with flatbuffers) or ONNX Runtime to compute; nothing else of what training
needs. A policy is a folder with `contract.json`, which says what goes in and comes out, and the
same decision as one or two programs. Both are data: loading runs no code from the folder. Hashes
show damage, not a forger; who passes `sha256` to `load` gets the very policy that was exported.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from farl_jax.schema import Count, Name, Natural, Positive, SchemaError, Single, check, shown
from farl_jax.storage import json_files

FORMAT = 1
CONTRACT = "contract.json"
Runtime = Literal["jax", "onnx"]
PROGRAMS: Mapping[Runtime, str] = {"jax": "policy.stablehlo", "onnx": "policy.onnx"}
"""Runtime -> the file that it computes with."""
INPUT, OUTPUTS = "obs", ("action", "risk", "intervened")
NEXT = "next_"
"""Begins the name of an output that is a memory variable after the step."""

Memory = dict[str, np.ndarray]
"""Everything that a policy remembers between two steps: `Contract["memory"]` by name."""
Program = Callable[..., tuple[Any, ...]]
"""(obs [D], *memory) -> (action [A], risk [], intervened [], *memory)."""


class Channel(TypedDict):
    """One number of an observation or an action; None is unknown, or for a bound, unbounded."""

    name: Name
    unit: str | None
    low: Single | None
    high: Single | None


class Variable(TypedDict):
    """One array that the policy remembers, and its value before the first step, row by row."""

    name: Name
    dtype: Literal["float32", "int32", "uint32", "bool"]
    shape: list[Count]
    start: list[Single]


class GateTerms(TypedDict):
    """What makes a recovery act, and what acts then."""

    risk: str
    recovery: str
    eps_safe: Single
    horizon: Natural | None
    settings: dict[str, Any]


class File(TypedDict):
    """A file of the folder, as it was written."""

    bytes: Natural
    sha256: str


class Contract(TypedDict):
    """contract.json: what a robot gives, what it gets, and where the policy comes from."""

    format: int
    task: Name
    method: Name
    step: Natural
    observation: list[Channel]
    action: list[Channel]
    rate_hz: Positive | None
    gate: GateTerms | None
    memory: list[Variable]
    files: dict[str, File]
    weights_sha256: str
    versions: dict[str, str | None]
    commit: str | None
    dirty: bool | None
    sha256: str


class DeployError(ValueError):
    """A policy cannot be loaded, or cannot act on what it was given. One line: what, where, how."""


@dataclass(frozen=True)
class SafePolicy:
    """A decision and its contract. It holds no state: what it remembers goes in and comes out."""

    contract: Contract
    program: Program

    def start(self) -> Memory:
        """What the policy remembers before an episode's first step."""
        return {v["name"]: _start_of(v) for v in self.contract["memory"]}

    def act(
        self, obs: Any, memory: Mapping[str, Any]
    ) -> tuple[np.ndarray, Memory, dict[str, float | bool]]:
        """One decision.

        Args:
            obs: [D] in the contract's order and units.
            memory: what `start` or the last `act` returned.

        Returns:
            action [A] f32, memory, {"risk": what the gate compares with eps_safe, 0 without a gate;
            "intervened": whether the recovery acts}.

        Raises:
            DeployError: shape, NaN or memory: no action is to be had, and the robot should stop.
        """
        obs = self._checked(obs)
        try:
            remembered = [memory[v["name"]] for v in self.contract["memory"]]
        except (KeyError, TypeError, IndexError):
            names = ", ".join(v["name"] for v in self.contract["memory"])
            raise DeployError(
                f"memory must be what start() or act() returned, with {names or 'nothing'}"
            ) from None
        action, risk, intervened, *after = self.program(obs, *remembered)
        action = np.asarray(action)
        if not np.isfinite(action).all():
            raise DeployError("the action is not finite: the observation lies beyond all numbers")
        names = (v["name"] for v in self.contract["memory"])
        memory = {name: np.asarray(value) for name, value in zip(names, after, strict=True)}
        return action, memory, {"risk": float(risk), "intervened": bool(intervened)}

    def _checked(self, obs: Any) -> np.ndarray:
        channels = self.contract["observation"]
        try:
            obs = np.asarray(obs, np.float32)
        except (TypeError, ValueError):
            raise DeployError("obs must be numbers; see observation in contract.json") from None
        if obs.shape != (len(channels),):
            raise DeployError(
                f"obs must have shape ({len(channels)},), one number for each entry of observation "
                f"in contract.json; got shape {obs.shape}"
            )
        if not np.isfinite(obs).all():
            first = int(np.flatnonzero(~np.isfinite(obs))[0])
            raise DeployError(
                f"obs[{first}], {channels[first]['name']}, is {obs[first]}: it must be finite; "
                "stop the robot and check its sensor"
            )
        return obs


def load(folder: str | Path, runtime: Runtime = "jax", sha256: str | None = None) -> SafePolicy:
    """The policy of a folder that `farl export` wrote, ready to act.

    Args:
        folder: where `contract.json` lies.
        runtime: "jax" compiles the StableHLO program for JAX's default device; "onnx" runs the
            ONNX program on one CPU thread and imports no JAX.
        sha256: of the contract, as `farl export` printed it; another one is refused.

    Raises:
        DeployError: no such folder, damage, another format, or a runtime that is not there.
    """
    folder = Path(folder)
    if runtime not in get_args(Runtime):
        raise DeployError(f"runtime must be {' or '.join(get_args(Runtime))}; got {runtime!r}")
    contract = read_contract(folder)
    if sha256 not in (None, contract["sha256"]):
        raise DeployError(
            f"{folder / CONTRACT}: another policy: its sha256 is {contract['sha256']}, "
            f"and {shown(sha256)} was asked for"
        )
    path = folder / PROGRAMS[runtime]
    if path.name not in contract["files"]:
        raise DeployError(
            f"{folder}: exported without {path.name}; use one of {', '.join(contract['files'])}, "
            "or export it again with --formats"
        )
    data = _intact(path, contract["files"][path.name])
    program = {"jax": _jax_program, "onnx": _onnx_program}[runtime](data, contract, path)
    policy = SafePolicy(contract, program)
    _try_out(policy, path)
    return policy


def read_contract(folder: Path) -> Contract:
    """The contract of a folder, whole and of this format.

    Raises:
        DeployError: it is none, damaged, or of another format.
    """
    path = folder / CONTRACT
    if not path.is_file():
        raise DeployError(
            f"{folder}: no exported policy, there is no {CONTRACT}: check the path, or write one "
            "with farl export RUN -o FOLDER"
        )
    try:
        saved = json_files.read(path, dict[str, Any])
        if saved.get("format") != FORMAT:
            raise DeployError(
                f"{path}: format {shown(saved.get('format'))}, this version reads {FORMAT}: use "
                "the farl-jax that wrote it, or export the policy again"
            )
        contract = check(Contract, saved, "")
    except SchemaError as error:
        raise DeployError(f"{path}: damaged ({str(error).removeprefix(f'{path}: ')})") from error
    if contract["sha256"] != digest(contract):
        raise DeployError(f"{path}: changed since it was written (its sha256 differs); copy again")
    return contract


def digest(contract: Mapping[str, Any]) -> str:
    """SHA-256 of all that a contract says but for its own hash."""
    body = {name: value for name, value in contract.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _start_of(variable: Variable) -> np.ndarray:
    return np.array(variable["start"], variable["dtype"]).reshape(variable["shape"])


def _intact(path: Path, file: File) -> bytes:
    try:
        data = json_files.read_bytes(path)
    except SchemaError as error:
        raise DeployError(str(error)) from error
    if len(data) != file["bytes"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
        raise DeployError(f"{path}: damaged (its sha256 differs); copy the folder again")
    return data


def _jax_program(data: bytes, contract: Contract, path: Path) -> Program:
    try:
        import flatbuffers  # noqa: F401  jax.export cannot read without it
        import jax
        from jax import export
    except ImportError as error:
        raise DeployError(
            f"the runtime jax lacks {error.name}: pip install jax flatbuffers, or use "
            'runtime="onnx"'
        ) from error
    try:
        exported = export.deserialize(bytearray(data))
        return jax.jit(exported.call).lower(*exported.in_avals).compile()
    except Exception as error:  # of many types: another version's program, or another device
        reason = " ".join(str(error).split())[:200]
        raise DeployError(
            f"{path}: JAX {jax.__version__} on {jax.default_backend()} cannot use it ({reason}); "
            f"it was written by JAX {contract['versions'].get('jax')} for CPU and CUDA"
        ) from error


def _onnx_program(data: bytes, contract: Contract, path: Path) -> Program:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeployError(
            'the runtime onnx lacks onnxruntime: pip install onnxruntime, or use runtime="jax"'
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    memory = [v["name"] for v in contract["memory"]]
    outputs = [*OUTPUTS, *(NEXT + name for name in memory)]
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of many types
        reason = " ".join(str(error).split())[:200]
        version = onnxruntime.__version__
        raise DeployError(f"{path}: ONNX Runtime {version} cannot use it ({reason})") from error

    def program(obs: np.ndarray, *values: np.ndarray) -> tuple[Any, ...]:
        return tuple(session.run(outputs, {INPUT: obs, **dict(zip(memory, values, strict=True))}))

    return program


def _try_out(policy: SafePolicy, path: Path) -> None:
    """Act once, so that the first step of the robot is as quick as the others."""
    zeros = np.zeros(len(policy.contract["observation"]), np.float32)
    try:
        action, *_ = policy.act(zeros, policy.start())
    except DeployError as error:
        raise DeployError(f"{path}: cannot act: {error}") from error
    except Exception as error:  # of the runtime's own types
        reason = " ".join(str(error).split())[:200]
        raise DeployError(f"{path}: does not fit its {CONTRACT} ({reason}); copy again") from error
    if action.shape != (len(policy.contract["action"]),):
        raise DeployError(f"{path}: does not fit its {CONTRACT}: actions of {action.shape}")
