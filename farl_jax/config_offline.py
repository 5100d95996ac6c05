"""Settings of demonstrations, networks and the offline phase. See `farl_jax.config`."""

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
class EnvConfig(Checked):
    """An environment of a user's own (`--env`): what its interface does not say."""

    failure_key: str = "auto"
    """Key of `info` that says failure, by a number above 0; auto takes `failure` or `cost`."""
    success_key: str = "auto"
    """Key of `info` that says success; auto takes `success` or `is_success`, if there is one."""
    episode_limit: Count | None = None
    """Longest episode in steps. None takes the environment's own limit."""
    random_return: float | None = None
    """Return that is normalised to 0. None measures it with the demonstrations."""
    expert_return: float | None = None
    """Return that is normalised to 100. None measures it with the demonstrations."""

    @property
    def keys(self) -> tuple[str | None, str | None]:
        """Keys of failure and of success, None where the usual ones are looked for."""
        failure, success = (
            None if k == "auto" else k for k in (self.failure_key, self.success_key)
        )
        return failure, success


@dataclass(frozen=True)
class DemosConfig(Checked):
    """Demonstrations, collected with scripted controllers and the cloned policies."""

    task_episodes: Annotated[int, Range(2)] = 10
    """Episodes of the task expert."""
    task_noise: NonNegative = 0.3
    """Standard deviation of the noise on the expert's actions. It makes weak demonstrations."""
    failure_episodes: Count = 512
    """Episodes of careless and noisy controllers, which often fail."""
    policy_episodes: Natural = 384
    """Episodes of learnt policies, with exploration noise, added to the failure demos. The clones
    take half. The improved policy takes half, and recovery takes over at a random step of those."""
    recovery_episodes: Annotated[int, Range(2)] = 1500
    """Episodes of the recovery controller."""
    recovery_noise: NonNegative = 0.6
    """Largest standard deviation of the noise on recovery actions. The clone learns clean ones."""
    recovery_length: Count = 50
    """Steps after which a recovery episode ends."""
    dagger_rounds: Natural = 2
    """DAgger rounds: the recovery controller labels states that the policies visited."""
    dagger_turn: Annotated[float, Range(1)] = 25.0
    """Mean length, in steps, of each policy's turn during DAgger collection."""
    danger_margin: float | None = None
    """Failure margin, in m, at which a recovery demonstration starts. None: the task's value."""
    danger_lead: NonNegative | None = None
    """Both margins are predicted this many steps ahead at current speed. None: the task's value."""
    safe_margin: float | None = None
    """Failure margin, in m, at which it ends as a success. None: the task's value."""
    num_envs: Count = 64
    """Environments that collect at once."""
    interaction: Interaction = "practice"
    """practice: in the offline phase learnt policies also act in the environment, for
    `policy_episodes` and `dagger_rounds`. Results count their failures. none: they do not act."""


@dataclass(frozen=True)
class NetworkConfig(Checked):
    """Sizes of the policies, values and critics (Uni-O4: three ReLU layers of 256)."""

    width: Count = 256
    depth: Count = 3
    critic_depth: Count = 2
    min_std: Positive = 0.3
    """Lower bound of the policy's standard deviation. It keeps exploration and ratios bounded."""
    recovery_motion: NonNegative = 0.0
    """Gain of the change between the observation's two frames, as a further input of the recovery
    policy. 0 leaves it out. A ball that rolls 1 mm a step moves a normalised position by 0.01."""


@dataclass(frozen=True)
class BCConfig(Checked):
    """Behaviour cloning of an ensemble, by maximum likelihood."""

    members: Count = 4
    steps: Count = 1200
    batch: Count = 128
    learning_rate: Positive = 1e-3
    """Peak of a cosine schedule."""
    holdout: Fraction = 0.15
    """Share of trajectories held out, at least one. Their likelihood selects the weights."""


@dataclass(frozen=True)
class IQLConfig(Checked):
    """Implicit Q-learning critics on the offline data."""

    steps: Count = 2000
    batch: Count = 128
    learning_rate: Positive = 3e-4
    expectile: Fraction = 0.7
    discount: Discount = 0.99
    target_rate: Rate = 0.005
    reward_scale: Positive | None = None
    """Factor on rewards, of the online phase too. None takes the one that makes |V| about 10."""


@dataclass(frozen=True)
class OfflinePPOConfig(Checked):
    """Uni-O4's offline policy improvement, gated by off-policy evaluation."""

    rounds: Natural = 6
    """Proposals per member. Off-policy evaluation accepts or rejects each."""
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
    """Latent world model: TD-MPC2's losses, a failure head and a decoder."""

    encoder: Encoder = "identity"
    """identity takes the normalised observation as latent, without SimNorm or decoder, and the
    dynamics predict its change. mlp learns a latent, as the paper does."""
    latent: Count = 64
    """Latent size of encoder mlp, a multiple of `simnorm_group`."""
    simnorm_group: Count = 8
    width: Count = 128
    train_horizon: Count = 5
    """Steps per window. The heads learn on latents rolled this far, so H must be below it."""
    gamma_risk: Share = 0.97
    """Discount of risk per step, in the gate's R and in the risk heads."""
    steps: Count = 4000
    batch: Count = 128
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
    """Weight of the risk heads. Four losses are summed."""
    decoder_weight: NonNegative = 10.0
    """Weight of the decoder, which TD-MPC2 lacks. The gate's policy sees decoded observations."""
    value_stride: Count = 4
    """Reward, value and prior losses use every n-th window. The gate does not need them."""
    bins: Annotated[int, Range(2)] = 51
    bin_limit: Positive = 10.0
    """Limit of the two-hot support, in symlog space."""
    discount: Discount = 0.99
    target_rate: Rate = 0.01
    risk_target_rate: Rate = 0.05
    """Polyak rate of the risk heads' targets. A failure's risk moves back by one step in about one
    over this number of updates."""
    failure_share: Share = 0.5
    """Share of each batch with a failure in its window."""
    failing_run_cap: Count = 10
    """A window may start at most this many steps into a run of failing steps."""
    holdout: Fraction = 0.15
    chunk: Count = 2
    """Updates in one compiled call."""
