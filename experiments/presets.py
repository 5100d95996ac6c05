"""The three budgets, and settings as JSON (a run folder's config.json) and as words."""

import contextlib
import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.runtime import UserError
from farl_jax.config import (
    BCConfig,
    ConstraintConfig,
    DemosConfig,
    FarlConfig,
    IQLConfig,
    OfflinePPOConfig,
    OnlineConfig,
    RiskCriticConfig,
    WorldModelConfig,
)
from farl_jax.methods import METHODS, Method

PROTOCOL = 1
"""Raised whenever counting, evaluation or the environment's meaning changes."""

PRESETS: dict[str, FarlConfig] = {
    "smoke": FarlConfig(
        demos=DemosConfig(
            failure_episodes=32,
            policy_episodes=16,
            recovery_episodes=8,
            dagger_rounds=1,
            num_envs=16,
        ),
        bc=BCConfig(members=2, steps=50),
        recovery_bc=BCConfig(members=2, steps=50),
        iql=IQLConfig(steps=50),
        offline_ppo=OfflinePPOConfig(rounds=1, steps_per_round=5, model_steps=50),
        world_model=WorldModelConfig(steps=50, batch=32),
        risk_critic=RiskCriticConfig(steps=100, chunk=50),
        online=OnlineConfig(
            env_steps=4096,
            critic_warmup=1000,
            num_envs=16,
            rollout=32,
            eval_every=4096,
            eval_episodes=16,
            final_episodes=16,
        ),
    ),
    "quick": FarlConfig(
        demos=DemosConfig(
            failure_episodes=256, policy_episodes=128, recovery_episodes=320, dagger_rounds=1
        ),
        bc=BCConfig(steps=800),
        recovery_bc=BCConfig(steps=800),
        iql=IQLConfig(steps=1200),
        offline_ppo=OfflinePPOConfig(rounds=3, model_steps=600),
        world_model=WorldModelConfig(steps=1200, batch=48),
        risk_critic=RiskCriticConfig(steps=2500),
        online=OnlineConfig(
            env_steps=200_000,
            critic_warmup=20_000,
            eval_every=102_400,  # 25 updates: once half-way, once at the end
            final_episodes=64,
            checkpoint_every=102_400,
        ),
    ),
    "paper": FarlConfig(),
}


TASKS: dict[str, dict[str, dict[str, Any]]] = {
    "obstructed_push": {
        "online": {"success_bonus": 1000.0},
        "safety": {"max_risk": 1.0, "failure_limit": 0.015, "min_risk": 0.03},  # rows 65, 73
    },
    "fragile_push_wall": {
        "demos": {"task_episodes": 6},  # row 79, as what follows; eps_safe also 67
        "safety": {"max_risk": 0.1, "failure_limit": 0.002, "limit_rate": 0.1, "min_risk": 0.01},
    },
    "bounded_soccer": {
        "network": {"recovery_motion": 30.0},  # row 80
        "world_model": {  # rows 74 to 76
            "failure_window": 250,
            "failure_weight": 5.0,
            "train_horizon": 5,
            "batch": 256,
        },
        "safety": {  # rows 76 to 78, 82, 83
            "horizon": 4,
            "hold": 1,
            "max_risk": 1.0,
            "min_recovery_steps": 20,
            "max_recovery_steps": 60,
        },
        "mppi": {"horizon": 4},
    },
}
"""Task -> group -> settings in which it differs from every preset.

The rows named are those of docs/experiments.md that chose them.
"""

BUDGETS: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("paper", "bounded_soccer"): {
        "demos": {"num_envs": 256, "policy_episodes": 1024, "dagger_rounds": 3},  # row 80
        "recovery_bc": {"members": 1, "steps": 5000, "batch": 512},
    },
}
"""(Preset, task) -> group -> settings in which the task differs from that preset alone."""


@dataclass(frozen=True)
class RunSettings:
    """Everything that decides a run's numbers."""

    task: str = "bounded_push"
    preset: str = "quick"
    seed: int = 0
    backend: str | None = None
    """native, mjx or warp; None takes native on a CPU-only machine and mjx on an accelerator."""
    config: FarlConfig = field(default_factory=FarlConfig)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the protocol's version."""
        return {"protocol": PROTOCOL} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Any) -> "RunSettings":
        """Strictly back; a UserError names an unknown or mistyped field.

        A setting that a later version added takes its default.
        """
        if not isinstance(saved, dict) or saved.get("protocol") != PROTOCOL:
            found = saved.get("protocol") if isinstance(saved, dict) else None
            raise UserError(
                f"config.json is of protocol {found}, this version runs {PROTOCOL}: "
                "start a new run with another --out"
            )
        return _build(cls, {k: v for k, v in saved.items() if k != "protocol"}, "config.json")


def preset(name: str, task: str) -> FarlConfig:
    """The named budget, with what `task` needs besides."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
    config = PRESETS[name]
    for own in (TASKS.get(task, {}), BUDGETS.get((name, task), {})):
        for group, settings in own.items():
            changed = dataclasses.replace(getattr(config, group), **settings)
            config = dataclasses.replace(config, **{group: changed})
    return config


def parse_setting(name: str, text: str) -> Any:
    """What `text` means as the value of FarlConfig's field `name`, dotted: by the field's type."""
    hint: Any = FarlConfig
    for part in name.split("."):
        hints = typing.get_type_hints(hint) if dataclasses.is_dataclass(hint) else {}
        if part not in hints:
            raise UserError(f"unknown setting {name!r}: {_nearest(name)}")
        hint = hints[part]
    if dataclasses.is_dataclass(hint):
        fields = ", ".join(f.name for f in dataclasses.fields(hint))
        raise UserError(f"{name} is a group of settings: name one of its fields, {fields}")
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if text.lower() == "none" and types.NoneType in kinds:
        return None
    for kind in kinds:
        with contextlib.suppress(KeyError, ValueError):
            value = _READERS[kind](text)
            if not isinstance(value, float) or math.isfinite(value):
                return _value(hint, value, name)
    return _value(hint, text, name)


def text_of(value: Any) -> str:
    """A setting's value as it stands in folder names and tables; `parse_setting` reads it again."""
    return json.dumps(value).strip('"').replace("null", "none")


_READERS: dict[Any, Any] = {
    bool: lambda text: {"true": True, "false": False}[text.lower()],
    int: int,
    float: float,
}


def _nearest(name: str) -> str:
    """The settings most like `name`, of all there are."""
    groups = typing.get_type_hints(FarlConfig)
    names = [f"{g}.{f.name}" for g, kind in groups.items() for f in dataclasses.fields(kind)]
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "farl run --help lists them all"


def with_settings(config: FarlConfig, changes: Mapping[str, Any]) -> FarlConfig:
    """`config` with other values of some fields, by their dotted names."""
    for name, value in changes.items():
        group, field_name = name.split(".")
        changed = dataclasses.replace(getattr(config, group), **{field_name: value})
        config = dataclasses.replace(config, **{group: changed})
    return config


def check(settings: RunSettings, methods: Iterable[str] = tuple(METHODS)) -> None:
    """Refuse what cannot work with one of these methods, before anything is written."""
    from envs_mjx import make

    make(settings.task, settings.backend)
    online = settings.config.online
    if online.minibatches > online.num_envs * online.rollout:
        raise UserError(
            f"online.minibatches is {online.minibatches}, more than the {online.num_envs} x "
            f"{online.rollout} steps of one update: lower it"
        )
    config = settings.config
    if config.adaptation.every > 0 and online.rollout < config.world_model.train_horizon:
        raise UserError(
            f"online.rollout is {online.rollout}, shorter than world_model.train_horizon = "
            f"{config.world_model.train_horizon}: raise it, or set adaptation.every to 0"
        )
    _check_constraint(config.constraint)
    _check_recoveries(config)
    _check_gate(config)
    for method in methods:
        check_method(config, METHODS[method])


def check_method(config: FarlConfig, method: Method) -> None:
    """Refuse settings that this method alone cannot work with."""
    plan, length = config.mppi, config.world_model.train_horizon
    if method.recovery == "mppi" and not 1 <= plan.horizon < length:
        raise UserError(
            f"mppi.horizon is {plan.horizon}, but the world model is trained on "
            f"world_model.train_horizon = {length} steps: plan for 1 to {length - 1}"
        )


def _check_gate(config: FarlConfig) -> None:
    safety, world = config.safety, config.world_model
    if safety.hold < 1:
        raise UserError(f"safety.hold is {safety.hold}: an imagined action lasts at least 1 step")
    if safety.patience < 1:
        raise UserError(
            f"safety.patience is {safety.patience}: below 1 recovery would never act; "
            "for a run without a gate use --method uni_o4"
        )
    if safety.horizon >= world.train_horizon:
        raise UserError(
            f"safety.horizon is {safety.horizon}, but the failure head is "
            f"trained on world_model.train_horizon = {world.train_horizon} "
            "steps: raise that above it"
        )
    if world.failure_window < 1:
        raise UserError(
            f"world_model.failure_window is {world.failure_window}: 1 step is the least"
        )
    if safety.failure_limit is None:
        return
    if not 0 < safety.failure_limit < 1:
        raise UserError(
            f"safety.failure_limit is {safety.failure_limit}: it is a share of episodes, between "
            "0 and 1, or none"
        )
    if not (safety.limit_rate > 0 and safety.min_risk > 0):
        raise UserError("safety.limit_rate and safety.min_risk must be above 0")
    if safety.max_risk is not None and safety.max_risk < safety.min_risk:
        raise UserError(
            f"safety.max_risk is {safety.max_risk}, below safety.min_risk = {safety.min_risk}: "
            "eps_safe moves between the two"
        )


def _check_constraint(constraint: ConstraintConfig) -> None:
    for name in ("limit", "discount"):
        if not 0.0 <= (value := getattr(constraint, name)) < 1.0:
            raise UserError(f"constraint.{name} is {value}: it lies in [0, 1)")
    for name in ("window", "fit_batch", "curvature_stride", "max_kl"):
        if not (value := getattr(constraint, name)) > 0:
            raise UserError(f"constraint.{name} is {value}: it must be above 0")


def _check_recoveries(config: FarlConfig) -> None:
    """Refuse settings of MPPI and of the risk critic that cannot work."""
    plan, critic = config.mppi, config.risk_critic
    if not 1 <= plan.elites <= plan.samples:
        raise UserError(
            f"mppi.elites is {plan.elites}: of mppi.samples = {plan.samples}, keep 1 up"
        )
    if plan.iterations < 1 or plan.slots < 1:
        raise UserError("mppi.iterations and mppi.slots must be at least 1")
    if not 0 <= critic.failure_share <= 1:
        raise UserError(f"risk_critic.failure_share is {critic.failure_share}: it is 0 to 1")
    kept = min(critic.transitions, critic.failing_transitions)
    if critic.transitions_per_rollout > kept:
        raise UserError(
            f"risk_critic.transitions_per_rollout is {critic.transitions_per_rollout}, more than "
            f"the {kept} that are kept: lower it"
        )


def _build(kind: type, saved: Any, where: str) -> Any:
    if not isinstance(saved, dict):
        raise UserError(f"{where}: {saved!r} is not a group of settings")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    if unknown := sorted(set(saved) - set(names)):
        raise UserError(f"{where}: unknown setting {unknown[0]!r}: known are {', '.join(names)}")
    return kind(**{n: _value(hints[n], v, f"{where}: {n}") for n, v in saved.items()})


def _value(hint: Any, saved: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return _build(hint, saved, where)
    origin = typing.get_origin(hint)
    if origin is typing.Literal:
        good = saved in typing.get_args(hint)
    elif origin in (typing.Union, types.UnionType):
        good = isinstance(saved, typing.get_args(hint)) and not isinstance(saved, bool)
    elif hint is float:
        good = isinstance(saved, int | float) and not isinstance(saved, bool)
    else:
        good = type(saved) is hint
    if not good:
        raise UserError(f"{where} is {saved!r}, expected {hint}")
    return saved
