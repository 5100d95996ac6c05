"""Every number of the method, as one tree of frozen dataclasses.

All numbers are static under jit but eps_safe, which is traced. In the horizon study H and
gamma_risk are traced, too, so that all its gates are one program. An annotation says which values a
number may have (`farl_jax.schema`). It is checked for the command line, files, sweeps and Python.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from farl_jax.config_offline import (
    BCConfig,
    DemosConfig,
    EnvConfig,
    IQLConfig,
    NetworkConfig,
    OfflinePPOConfig,
    WorldModelConfig,
)
from farl_jax.config_online import (
    AdaptationConfig,
    ConstraintConfig,
    MPPIConfig,
    OnlineConfig,
    RiskCriticConfig,
    SafetyConfig,
)
from farl_jax.schema import (
    Checked,
    Count,
    Fraction,
    Length,
    Rate,
    SchemaError,
    check_bounds,
)

__all__ = [
    "AdaptationConfig",
    "BCConfig",
    "ConstraintConfig",
    "DemosConfig",
    "EnvConfig",
    "FarlConfig",
    "HorizonConfig",
    "IQLConfig",
    "MPPIConfig",
    "NetworkConfig",
    "OfflinePPOConfig",
    "OnlineConfig",
    "RiskCriticConfig",
    "SafetyConfig",
    "WorldModelConfig",
    "replace",
    "steps_per_sample",
]


@dataclass(frozen=True)
class HorizonConfig(Checked):
    """The study of the horizon of a risk without a tail, on a trained run.

    Each combination is one gate.
    """

    horizons: Annotated[tuple[Count, ...], Length(1, distinct=True)] = (1, 2, 3, 5, 8, 10, 15, 20)
    """Horizons H. Beyond `world_model.train_horizon` - 1 the failure head extrapolates."""
    gammas: Annotated[tuple[Rate, ...], Length(1, distinct=True)] = (0.85, 0.95)
    """Discounts gamma_risk."""
    trigger_rates: Annotated[tuple[Fraction, ...], Length(1, distinct=True)] = (0.02, 0.05, 0.1)
    """Trigger rates on calm ungated steps. Each gate's eps_safe is chosen to have this rate."""
    watch_steps: Count = 100_000
    """Ungated env steps from which thresholds, recall and lead times are measured."""
    act_steps: Count = 40_000
    """Env steps with each gate. As many are run without a gate."""
    num_envs: Count = 32
    """Environments of each gate. All gates run in one batch."""
    chunk: Count = 50
    """Env steps in one compiled call."""
    draws: Count = 2000
    """Bootstrap draws over environments for a 95 % interval."""


@dataclass(frozen=True)
class FarlConfig(Checked):
    """One run, from demonstrations to fine-tuned policy.

    Raises:
        SchemaError: two groups of settings contradict each other.
    """

    demos: DemosConfig = field(default_factory=DemosConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    bc: BCConfig = field(default_factory=BCConfig)
    recovery_bc: BCConfig = field(default_factory=lambda: BCConfig(steps=2500, batch=256))
    iql: IQLConfig = field(default_factory=IQLConfig)
    offline_ppo: OfflinePPOConfig = field(default_factory=OfflinePPOConfig)
    world_model: WorldModelConfig = field(default_factory=WorldModelConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    adaptation: AdaptationConfig = field(default_factory=AdaptationConfig)
    risk_critic: RiskCriticConfig = field(default_factory=RiskCriticConfig)
    mppi: MPPIConfig = field(default_factory=MPPIConfig)
    online: OnlineConfig = field(default_factory=OnlineConfig)
    constraint: ConstraintConfig = field(default_factory=ConstraintConfig)
    env: EnvConfig = field(default_factory=EnvConfig)

    def __post_init__(self) -> None:
        """Check rules across groups. Each group has already checked its own fields."""
        super().__post_init__()
        check_bounds(self)
        online, world, safety = self.online, self.world_model, self.safety
        if online.minibatches > (steps := online.num_envs * online.rollout):
            raise SchemaError(
                "online.minibatches must be at most online.num_envs x online.rollout "
                f"({steps}); got {online.minibatches}"
            )
        if self.adaptation.every > 0 and online.rollout < world.train_horizon:
            raise SchemaError(
                f"online.rollout must be at least world_model.train_horizon ({world.train_horizon})"
                f"; got {online.rollout}. Raise it, or set adaptation.every to 0"
            )
        if world.encoder == "mlp" and world.latent % world.simnorm_group:
            raise SchemaError(
                "world_model.latent must be a multiple of world_model.simnorm_group "
                f"({world.simnorm_group}); got {world.latent}"
            )
        if safety.horizon < 0 and not safety.tail:
            raise SchemaError(
                f"safety.horizon must be at least 0 without safety.tail; got {safety.horizon}"
            )
        if safety.form == "sum" and safety.tail:
            raise SchemaError("safety.form sum has no tail; set safety.tail to false")
        followed = safety.trigger_rate is not None and safety.max_risk is not None
        if followed and safety.max_risk < safety.min_risk:
            raise SchemaError(
                f"safety.max_risk must be at least safety.min_risk ({safety.min_risk}) when "
                f"safety.trigger_rate is set; got {safety.max_risk}"
            )


def steps_per_sample(config: FarlConfig) -> dict[str, float]:
    """Env steps for each sample that world model and risk critic learn from online, by name.

    A sample is one step (s, a) in a batch. A window has `train_horizon` of them. The number is
    infinite for a frozen part.
    """
    world, critic = config.world_model, config.risk_critic
    rollout = config.online.num_envs * config.online.rollout
    chunks = {
        "world_model": (config.adaptation.every, world.chunk * world.batch * world.train_horizon),
        "risk_critic": (critic.every, critic.chunk * critic.batch),
    }
    return {
        name: rollout * every / samples if every else float("inf")
        for name, (every, samples) in chunks.items()
    }


def replace(config: FarlConfig, changes: Mapping[str, Mapping[str, Any]]) -> FarlConfig:
    """Return `config` with some settings changed: group -> field -> value.

    Raises:
        SchemaError: the new settings contradict each other.
    """
    groups = {
        group: dataclasses.replace(getattr(config, group), **fields)
        for group, fields in changes.items()
    }
    return dataclasses.replace(config, **groups)
