"""The presets, and settings as JSON (a run folder's config.json) and as text."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.errors import UserError
from experiments.options import parse_text
from experiments.runs.environment import DEFAULT_TASK
from farl_jax.config import (
    AdaptationConfig,
    BCConfig,
    DemosConfig,
    FarlConfig,
    IQLConfig,
    OfflinePPOConfig,
    OnlineConfig,
    RiskCriticConfig,
    WorldModelConfig,
    replace,
)
from farl_jax.methods import METHODS, Method
from farl_jax.schema import Checked, Seed, check, hints_of, shown

PROTOCOL = 1
"""Increased when counting, evaluation or the environment changes."""

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
        risk_critic=RiskCriticConfig(steps=100, batch=80),
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
        world_model=WorldModelConfig(steps=1200, batch=128),
        risk_critic=RiskCriticConfig(steps=2400),
        online=OnlineConfig(
            env_steps=200_000,
            critic_warmup=20_000,
            eval_every=102_400,  # 25 updates: once halfway, once at the end
            final_episodes=64,
            checkpoint_every=102_400,
        ),
    ),
    "paper": FarlConfig(),
}
PRESETS["robot"] = dataclasses.replace(
    PRESETS["quick"],  # its offline phase
    adaptation=AdaptationConfig(windows_per_rollout=250),
    risk_critic=dataclasses.replace(PRESETS["quick"].risk_critic, transitions_per_rollout=1250),
    online=OnlineConfig(
        env_steps=12_500,  # what 50 episodes can take
        episodes=50,
        whole_episodes=1,
        dynamics="shifted",
        num_envs=1,
        rollout=250,
        epochs=10,
        minibatches=4,
        critic_warmup=0,
        eval_every=2500,
        checkpoint_every=2500,
    ),
)

AS_PUBLISHED: dict[str, dict[str, Any]] = {
    "demos": {"interaction": "none", "dagger_rounds": 0},
    "world_model": {"encoder": "mlp", "gamma_risk": 0.95, "risk_weight": 0.0},
    "safety": {
        "form": "sum",
        "tail": False,
        "horizon": 4,
        "release": 1.0,
        "control_share": 0.0,
        "max_risk": None,
        "trigger_rate": None,
        "target_trigger_rate": 0.3,
        "max_recovery_steps": 10_000,
        "patience": 10_000,
    },
    "adaptation": {"every": 0},
    "risk_critic": {"every": 0},
    "online": {"treatment": "executed"},
}
"""Group -> settings of the paper's algorithm as it is written.

Written there: policies cloned from demonstrations alone; a learnt latent; C_H as a plain sum over
the next steps, each imagined action asked anew; one threshold, fixed before the online phase, with
recovery wherever C_H exceeds it; a frozen world model; PPO on the executed transitions.

Left open there, and chosen here: H = 4 and gamma_risk = 0.95, of the size that TD-MPC2 imagines.
eps_safe foresees 90 % of the held-out failures two steps ahead, but acts in at most 30 % of their
safe steps, because the videos show 15 to 29 %. Loss weights and network sizes are ours. The Simple
Critic is frozen like the model, so that both have equal data.
"""
PRESETS["published"] = replace(PRESETS["paper"], AS_PUBLISHED)
"""Budgets. `robot` is that of a real robot: one environment, 50 episodes, updates in between.
`published` has the budget of `paper` and the algorithm of the paper."""


RETIRED = {
    "safety.gamma_risk": "world_model.gamma_risk",
    "safety.limit_rate": None,
    "safety.failure_limit": None,
    "safety.limit_memory": None,
    "online.success_bonus": None,
    "online.reward_scale": None,
    "world_model.failure_window": None,
}
"""Settings of older versions -> what replaces them; None: nothing does."""
FORMER = {
    "rule": "paper",
    "form": "sum",
    "tail": False,
    "release": 1.0,
    "control_share": 0.0,
    "trigger_rate": None,
}
"""What versions whose risk had no tail did where this version has a setting of `safety`."""


def retired(saved: Any) -> tuple[str, ...]:
    """Dotted names of the retired settings in a config.json."""
    config = saved.get("config") if isinstance(saved, dict) else None
    config = config if isinstance(config, dict) else {}
    split = (name.split(".") for name in RETIRED)
    return tuple(f"{g}.{f}" for g, f in split if isinstance(config.get(g), dict) and f in config[g])


def without_retired(saved: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json in this version's terms.

    Retired settings are renamed or left out.
    """
    names = retired(saved)
    if not names:
        return dict(saved)
    config = {k: dict(v) if isinstance(v, dict) else v for k, v in saved["config"].items()}
    for name in names:
        group, own = name.split(".")
        value, new = config[group].pop(own), RETIRED[name]
        if new is not None:
            group, own = new.split(".")
            config.setdefault(group, {}).setdefault(own, value)
    if "tail" not in config.setdefault("safety", {}):
        config["safety"] = FORMER | config["safety"]
    return dict(saved) | {"config": config}


@dataclass(frozen=True)
class RunSettings(Checked):
    """All settings that decide a run's numbers."""

    task: str = DEFAULT_TASK
    preset: str = "quick"
    seed: Seed = 0
    backend: str | None = None
    """native, mjx or warp. None takes mjx on an accelerator, else native."""
    config: FarlConfig = field(default_factory=FarlConfig)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, with the protocol's version."""
        return {"protocol": PROTOCOL} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, saved: Any) -> "RunSettings":
        """Read strictly. A UserError names an unknown or mistyped field.

        Settings of a later version take their defaults, and retired ones are replaced.
        """
        found = saved.get("protocol") if isinstance(saved, dict) else None
        if found != PROTOCOL:
            raise UserError(
                f"config.json: protocol must be {PROTOCOL}; got {shown(found)}; "
                "start a new run with another --out"
            )
        known = {k: v for k, v in without_retired(saved).items() if k != "protocol"}
        return check(cls, known, "config.json")


def preset(name: str) -> FarlConfig:
    """The preset with this name. It is the same for every task."""
    if name not in PRESETS:
        raise UserError(f"unknown preset {name!r}. Choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


def parse_setting(name: str, text: str) -> Any:
    """Parse `text` as the value of FarlConfig's field with dotted name `name`."""
    hint: Any = FarlConfig
    for part in name.split("."):
        hints = hints_of(hint) if dataclasses.is_dataclass(hint) else {}
        if part not in hints:
            raise UserError(f"unknown setting {name!r}; {_nearest(name)}")
        hint = hints[part]
    if dataclasses.is_dataclass(hint):
        fields = ", ".join(f.name for f in dataclasses.fields(hint))
        raise UserError(f"{name} is a group of settings; name one of its fields: {fields}")
    return parse_text(hint, text, name)


def text_of(value: Any) -> str:
    """A setting's value in folder names and tables. `parse_setting` reads it again."""
    return json.dumps(value).strip('"').replace("null", "none")


def differences(config: FarlConfig, usual: FarlConfig) -> list[tuple[str, Any, Any]]:
    """(dotted name, value in `config`, value in `usual`) of all settings that differ."""
    groups = [f.name for f in dataclasses.fields(usual)]
    pairs = [
        (f"{group}.{name}", getattr(getattr(config, group), name), default)
        for group in groups
        for name, default in vars(getattr(usual, group)).items()
    ]
    return [(name, own, other) for name, own, other in pairs if own != other]


def _nearest(name: str) -> str:
    """The settings with the most similar names."""
    groups = hints_of(FarlConfig)
    names = [f"{g}.{f.name}" for g, kind in groups.items() for f in dataclasses.fields(kind)]
    near = difflib.get_close_matches(name, names, n=2, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "farl run --help lists them all"


def with_settings(config: FarlConfig, changes: Mapping[str, Any]) -> FarlConfig:
    """Return `config` with some fields changed, by dotted name."""
    groups: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        group, field_name = name.split(".")
        groups.setdefault(group, {})[field_name] = value
    return replace(config, groups)


def check_run(settings: RunSettings, methods: Iterable[str] = tuple(METHODS)) -> None:
    """Refuse settings that cannot work with one of these methods, before anything is written.

    Single settings are already checked (`farl_jax.schema`).
    """
    from experiments.runs.environment import check_budget, environment, is_own_environment, named

    config = settings.config
    env = environment(settings.task, settings.backend, config.env)
    limit = env.episode_limit
    check_budget(config.online, limit)
    if config.online.dynamics == "shifted":
        environment(settings.task, settings.backend, config.env, settings.seed)
    dagger = config.demos.dagger_rounds > 0 and config.demos.interaction != "none"
    asked = is_own_environment(settings.task) and dagger
    if asked and not env.has("recovery"):
        raise UserError(
            f"{named(settings.task)} has no function recovery, which demos.dagger_rounds = "
            f"{config.demos.dagger_rounds} asks: write one, or add --demos.dagger-rounds 0"
        )
    if (length := settings.config.world_model.train_horizon) > limit:
        raise UserError(
            f"world_model.train_horizon must be at most the episode's {limit} steps; got {length}"
        )
    for method in methods:
        check_method(settings.config, METHODS[method])


def check_method(config: FarlConfig, method: Method) -> None:
    """Refuse settings that cannot work with this method."""
    plan, length = config.mppi, config.world_model.train_horizon
    if method.recovery == "mppi" and plan.horizon >= length:
        raise UserError(
            f"mppi.horizon must be below world_model.train_horizon ({length}); got {plan.horizon}"
        )
