"""Settings of demonstrations, networks and the offline phase; see `farl_jax.config`."""

from dataclasses import dataclass
from typing import Annotated, Literal

from farl_jax.schema import (
    Checked,
    Count,
    Discount,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Range,
    Rate,
    Share,
)

Encoder = Literal["mlp", "identity"]
Interaction = Literal["practice", "none"]


@dataclass(frozen=True)
class DemosConfig(Checked):
    """Demonstrations, all made in the environment by scripted controllers and the clone."""

    task_episodes: Annotated[int, Range(2)] = 10
    task_noise: NonNegative = 0.3
    """Standard deviation of the noise on the task expert's actions: weak demonstrations."""
    failure_episodes: Count = 512
    """Episodes of careless and noisy controllers."""
    policy_episodes: Natural = 384
    """Episodes of the cloned policy with its own exploration noise, added to the failure demos."""
    recovery_episodes: Annotated[int, Range(2)] = 1500
    recovery_noise: NonNegative = 0.6
    """Largest standard deviation of the noise on what recovery intends; the clone imitates that."""
    recovery_length: Count = 50
    dagger_rounds: Natural = 2
    """Times that the recovery policy is cloned again with answers from where it went itself."""
    dagger_turn: Annotated[float, Range(1)] = 25.0
    """Mean steps for which task policy and clone act in turn, while those are asked for."""
    danger_margin: float | None = None
    """m: a recovery demonstration starts this near failure; None takes the task's own."""
    danger_lead: NonNegative | None = None
    """Steps ahead, at the speed of the moment, at which both margins count; None as above."""
    safe_margin: float | None = None
    """m: it has succeeded, and ends, here; None takes the task's own."""
    num_envs: Count = 64
    interaction: Interaction = "practice"
    """practice: in the offline phase the cloned policies act in the environment, too, which the
    rows count (`policy_episodes`, `dagger_rounds`); none: they learn from demonstrations alone."""


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """Sizes of the policies, values and critics (Uni-O4: three ReLU layers of 256)."""

    width: Count = 256
    depth: Count = 3
    critic_depth: Count = 2
    min_std: Positive = 0.3
    """Floor of the policy's standard deviation, in actions; keeps exploration and ratios sane."""
    recovery_motion: NonNegative = 0.0
    """Gain of the change since the observation's earlier frame, which the recovery policy then
    sees besides: a ball that rolls by 1 mm a step moves a normalised position by 0.01 only."""


@dataclass(frozen=True)
class BCConfig(Checked):
    """Behaviour cloning of an ensemble by maximum likelihood."""

    members: Count = 4
    steps: Count = 1200
    batch: Count = 128
    learning_rate: Positive = 1e-3
    """Peak of a cosine schedule."""
    holdout: Fraction = 0.15
    """Share of trajectories, at least one, whose likelihood picks the weights that are kept."""


@dataclass(frozen=True)
class IQLConfig(Checked):
    """Implicit Q-learning critics on the offline data."""

    steps: Count = 2000
    batch: Count = 128
    learning_rate: Positive = 3e-4
    expectile: Fraction = 0.7
    discount: Discount = 0.99
    target_rate: Rate = 0.005
    reward_scale: Positive = 0.01
    """Makes |V| about 10 for returns of a few thousand."""


@dataclass(frozen=True)
class OfflinePPOConfig(Checked):
    """Uni-O4's offline policy improvement, gated by off-policy evaluation."""

    rounds: Natural = 6
    """Proposals per member; each is accepted or thrown away by the evaluation."""
    steps_per_round: Count = 50
    batch: Count = 256
    learning_rate: Positive = 1e-5
    clip: Fraction = 0.2
    ensemble: Count = 5
    model_steps: Count = 1000
    model_batch: Count = 128
    model_learning_rate: Positive = 1e-3
    rollout_length: Count = 10
    start_states: Count = 512


@dataclass(frozen=True)
class WorldModelConfig(Checked):
    """Latent world model with a failure head (TD-MPC2's losses plus decoder and failure)."""

    encoder: Encoder = "mlp"
    """identity: the latent is the normalised observation itself. There is nothing to encode or
    decode and no SimNorm; the dynamics predict the change of the observation."""
    latent: Count = 64
    """Of the encoder `mlp`, as `simnorm_group`."""
    simnorm_group: Count = 8
    width: Count = 128
    train_horizon: Count = 13
    """Steps per window: heads learn on latents rolled this far, so C_H may use H below it."""
    gamma_risk: Share = 0.95
    """How far risk reaches: what fails k steps from now counts gamma_risk^k, in the risk that the
    gate evaluates and in its learnt tail."""
    steps: Count = 3000
    batch: Count = 96
    learning_rate: Positive = 1e-3
    """Peak of a cosine schedule."""
    max_grad_norm: Positive = 20.0
    rho_consistency: Rate = 0.9
    rho_failure: Rate = 0.9
    rho_reward: Rate = 0.5
    consistency_weight: NonNegative = 2.0
    reward_weight: NonNegative = 0.1
    value_weight: NonNegative = 0.1
    failure_weight: NonNegative = 1.0
    risk_weight: NonNegative = 0.1
    """Of the risk's learnt tail; four heads are summed."""
    decoder_weight: NonNegative = 10.0
    """TD-MPC2 has no decoder and weighs consistency 20; the gate acts on decoded states."""
    value_stride: Count = 4
    """Reward, value and prior losses see every n-th window: the gate does not use them."""
    bins: Annotated[int, Range(2)] = 51
    bin_limit: Positive = 10.0
    """Two-hot support is symlog space [-limit, limit]."""
    discount: Discount = 0.99
    target_rate: Rate = 0.01
    failure_share: Share = 0.5
    """Share of each batch drawn from windows that contain a failure."""
    failing_run_cap: Count = 10
    """Windows that start deeper than this inside one run of failing steps are left out."""
    holdout: Fraction = 0.15
    chunk: Count = 25
    """Updates of one compiled call."""
