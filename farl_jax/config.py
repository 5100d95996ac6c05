"""Every number of the method, as one tree of frozen dataclasses. All of it is static under jit,

except the three numbers of the gate (`SafetyConfig.horizon`, `gamma_risk`, and the calibrated
eps_safe), which are traced so that a sweep over them compiles once.
"""

from dataclasses import dataclass, field
from typing import Literal

Treatment = Literal["executed", "masked", "relabelled"]
Encoder = Literal["mlp", "identity"]


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the policies, values and critics (Uni-O4: three ReLU layers of 256)."""

    width: int = 256
    depth: int = 3
    critic_depth: int = 2
    min_std: float = 0.3
    """Floor of the policy's standard deviation, in actions; keeps exploration and ratios sane."""
    recovery_motion: float = 0.0
    """Gain of the change since the observation's earlier frame, which the recovery policy then
    sees besides: a ball that rolls by 1 mm a step moves a normalised position by 0.01 only."""


@dataclass(frozen=True)
class BCConfig:
    """Behaviour cloning of an ensemble by maximum likelihood."""

    members: int = 4
    steps: int = 1200
    batch: int = 128
    learning_rate: float = 1e-3
    """Peak of a cosine schedule."""
    holdout: float = 0.15
    """Share of trajectories, at least one, whose likelihood picks the weights that are kept."""


@dataclass(frozen=True)
class IQLConfig:
    """Implicit Q-learning critics on the offline data."""

    steps: int = 2000
    batch: int = 128
    learning_rate: float = 3e-4
    expectile: float = 0.7
    discount: float = 0.99
    target_rate: float = 0.005
    reward_scale: float = 0.01
    """Makes |V| about 10 for returns of a few thousand."""


@dataclass(frozen=True)
class OfflinePPOConfig:
    """Uni-O4's offline policy improvement, gated by off-policy evaluation."""

    rounds: int = 6
    """Proposals per member; each is accepted or thrown away by the evaluation."""
    steps_per_round: int = 50
    batch: int = 256
    learning_rate: float = 1e-5
    clip: float = 0.2
    ensemble: int = 5
    model_steps: int = 1000
    model_batch: int = 128
    model_learning_rate: float = 1e-3
    rollout_length: int = 10
    start_states: int = 512


@dataclass(frozen=True)
class WorldModelConfig:
    """Latent world model with a failure head (TD-MPC2's losses plus decoder and failure)."""

    encoder: Encoder = "mlp"
    """identity: the latent is the normalised observation itself. There is nothing to encode or
    decode and no SimNorm; the dynamics predict the change of the observation."""
    latent: int = 64
    """Of the encoder `mlp`, as `simnorm_group`."""
    simnorm_group: int = 8
    width: int = 128
    train_horizon: int = 13
    """Steps per window: heads learn on latents rolled this far, so C_H may use H below it."""
    failure_window: int = 1
    """The failure head foretells a failure at its step or within the `failure_window` - 1 that
    follow in the episode. 1 is the paper's; more where what fails is settled long before."""
    steps: int = 3000
    batch: int = 96
    learning_rate: float = 1e-3
    """Peak of a cosine schedule."""
    max_grad_norm: float = 20.0
    rho_consistency: float = 0.9
    rho_failure: float = 0.9
    rho_reward: float = 0.5
    consistency_weight: float = 2.0
    reward_weight: float = 0.1
    value_weight: float = 0.1
    failure_weight: float = 1.0
    decoder_weight: float = 10.0
    """TD-MPC2 has no decoder and weighs consistency 20; the gate acts on decoded states."""
    value_stride: int = 4
    """Reward, value and prior losses see every n-th window: the gate does not use them."""
    bins: int = 51
    bin_limit: float = 10.0
    """Two-hot support is symlog space [-limit, limit]."""
    discount: float = 0.99
    target_rate: float = 0.01
    failure_share: float = 0.5
    """Share of each batch drawn from windows that contain a failure."""
    failing_run_cap: int = 10
    """Windows that start deeper than this inside one run of failing steps are left out."""
    holdout: float = 0.15
    chunk: int = 25
    """Updates of one compiled call."""


@dataclass(frozen=True)
class AdaptationConfig:
    """The world model's learning during the online phase."""

    every: int = 8
    """Policy updates between two chunks of world model updates; 0 freezes it, as in the paper."""
    learning_rate: float = 3e-4
    windows: int = 4096
    """Windows of the run's own steps that are kept; as many as `windows_per_rollout` are new."""
    failing_windows: int = 2048
    windows_per_rollout: int = 64


@dataclass(frozen=True)
class SafetyConfig:
    """The gate: recover when C_H exceeds eps_safe."""

    horizon: int = 12
    hold: int = 3
    """Imagined steps for which each action is held; asking the task policy is most of C_H's cost.
    1 is the paper's."""
    gamma_risk: float = 0.95
    max_risk: float | None = 1e-2
    """eps_safe; None takes the value calibrated on held-out episodes, mostly more cautious."""
    failure_limit: float | None = None
    """Share of episodes that may fail: while more do, eps_safe falls, to `min_risk` at least, and
    while fewer do it rises, to `max_risk` at most. None leaves it at `max_risk`."""
    limit_rate: float = 0.03
    """How far each episode that fails lowers log eps_safe; each that ends raises it by
    `failure_limit` times as much."""
    min_risk: float = 1e-2
    min_recovery_steps: int = 1
    """A recovery, once begun, lasts at least this long."""
    max_recovery_steps: int = 25
    """After this many recovery steps in a row the task policy acts once, so nothing deadlocks."""
    patience: int = 60
    """An alarm that lasts this many steps, pauses of up to `safety.PAUSE` included, is taken for
    false, and the gate keeps quiet for `safety.QUIET` steps. Otherwise what it forbids could never
    show the model its error."""
    target_recall: float = 0.9
    target_trigger_rate: float = 0.1
    lead_time: int = 2
    """Calibration: a failure is foreseen if the gate fires at least this many steps before."""


@dataclass(frozen=True)
class RiskCriticConfig:
    """`simple_critic`: Recovery RL's risk critic, which gates in the world model's place."""

    gamma_risk: float = 0.85
    max_risk: float = 0.25
    """eps_risk: recover when Q_risk exceeds it."""
    steps: int = 5000
    batch: int = 256
    failure_share: float = 0.3
    """Share of each batch drawn from failing steps."""
    learning_rate: float = 3e-4
    target_rate: float = 0.01
    every: int = 2
    """Policy updates between two chunks of the critic's updates online; 0 freezes it."""
    chunk: int = 100
    """Updates of one compiled call."""
    transitions: int = 65_536
    """Steps of the run that are kept; as many as `transitions_per_rollout` are new."""
    failing_transitions: int = 16_384
    transitions_per_rollout: int = 1024


@dataclass(frozen=True)
class MPPIConfig:
    """`mppi`: recovery planned through the world model.

    A setting for two CPU cores. On a GPU: 256 samples, 32 elites, 4 iterations.
    """

    samples: int = 64
    elites: int = 8
    iterations: int = 2
    horizon: int = 8
    temperature: float = 0.5
    """Elites weigh exp(temperature (V - V_max)); 0 is their plain mean, infinity the best one."""
    min_std: float = 0.05
    max_std: float = 1.0
    """Also what a plan starts from."""
    failure_weight: float = 10.0
    """w, in scaled rewards: what one certainly failing step costs a plan."""
    slots: int = 8
    """Environments planned for at once; further ones follow in more passes, no step has fewer
    than it needs."""


@dataclass(frozen=True)
class OnlineConfig:
    """Online PPO on what was really executed."""

    env_steps: int = 1_000_000
    num_envs: int = 128
    rollout: int = 32
    epochs: int = 5
    minibatches: int = 16
    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-3
    clip: float = 0.2
    discount: float = 0.99
    trace: float = 0.95
    entropy: float = 0.0
    max_grad_norm: float = 0.5
    target_kl: float = 0.03
    """An update stops when a minibatch's KL estimate exceeds this."""
    critic_warmup: int = 40_000
    """Steps before the actor moves: the offline V judged other behaviour than the task policy's."""
    reward_scale: float = 0.01
    success_bonus: float = 0.0
    """Reward that the learner, not the score, adds to a success. A time-out is bootstrapped, so
    staying beside the goal is worth 1 / (1 - discount) rewards of nearly 10, however short the
    episodes: where they are shorter than that, success must pay the difference to be wanted."""
    treatment: Treatment = "relabelled"
    """What PPO's policy loss sees of a recovered step."""
    log_prob_floor: float = -10.0
    """`executed`: recovered actions less likely than this are left out of the policy loss."""
    max_log_ratio: float = 2.0
    eval_every: int = 100_000
    eval_episodes: int = 64
    """Episodes of one evaluation: as many environments at once."""
    final_episodes: int = 256
    """Episodes of the evaluations before and after training, in rounds of `eval_episodes`."""
    checkpoint_every: int = 200_000
    max_diverged: float = 0.01
    """Share of the episodes in which the simulator may fail; if more do, the run stops."""


@dataclass(frozen=True)
class ConstraintConfig:
    """The safe-RL baselines PPO-Lagrangian, P3O and CPO: what they may cost, and how they obey."""

    limit: float = 0.05
    """d, the share of episodes that may fail; to be compared over 0.02, 0.05 and 0.1."""
    discount: float = 0.99
    """Of the cost to come, in V_C and its advantages; 1 - discount turns an excess of episodes
    into one of steps."""
    trace: float = 0.95
    window: int = 100
    """J_C is the failing share of about this many episodes that ended last."""
    fit_steps: int = 500
    """Steps of V_C on the demonstrations, before the online phase."""
    fit_batch: int = 256
    fit_learning_rate: float = 1e-3
    multiplier_rate: float = 0.5
    """PPO-Lagrangian: lambda's rise per update and unit of J_C - d."""
    multiplier_cap: float = 1.5
    """Both advantages are standardised: at 1 the cost weighs as much as the reward, so the cap must
    lie above it. Far above, soccer's policy never learns the task (docs/experiments.md, row 90)."""
    penalty: float = 20.0
    """P3O's kappa."""
    max_kl: float = 0.01
    """CPO's trust region: mean KL over states, summed over action dimensions, per update."""
    cg_steps: int = 10
    cg_damping: float = 0.1
    curvature_stride: int = 4
    """CPO measures the KL's curvature on every n-th step of a rollout."""
    backtracks: int = 15
    backtrack: float = 0.8
    """CPO tries its step at most `backtracks` times, each time shorter by this factor."""


@dataclass(frozen=True)
class DemosConfig:
    """Demonstrations, all made in the environment by scripted controllers and the clone."""

    task_episodes: int = 10
    task_noise: float = 0.3
    """Standard deviation of the noise on the task expert's actions: weak demonstrations."""
    failure_episodes: int = 512
    """Episodes of careless and noisy controllers."""
    policy_episodes: int = 384
    """Episodes of the cloned policy with its own exploration noise, added to the failure demos."""
    recovery_episodes: int = 1500
    recovery_noise: float = 0.6
    """Largest standard deviation of the noise on what recovery intends; the clone imitates that."""
    recovery_length: int = 50
    dagger_rounds: int = 2
    """Times that the recovery policy is cloned again with answers from where it went itself."""
    dagger_turn: float = 25.0
    """Mean steps for which task policy and clone act in turn, while those are asked for."""
    danger_margin: float | None = None
    """m: a recovery demonstration starts this near failure; None takes the task's own."""
    danger_lead: float | None = None
    """Steps ahead, at the speed of the moment, at which both margins count; None as above."""
    safe_margin: float | None = None
    """m: it has succeeded, and ends, here; None takes the task's own."""
    num_envs: int = 64


@dataclass(frozen=True)
class HorizonConfig:
    """The study of C_H's horizon on a trained run: each combination is a gate of its own."""

    horizons: tuple[int, ...] = (1, 2, 3, 5, 8, 10, 15, 20)
    """H. Beyond `world_model.train_horizon` - 1 the failure head extrapolates."""
    gammas: tuple[float, ...] = (0.85, 0.95)
    """gamma_risk."""
    trigger_rates: tuple[float, ...] = (0.02, 0.05, 0.1)
    """Share of calm ungated steps on which every gate would fire; eps_safe is chosen for it."""
    watch_steps: int = 100_000
    """Ungated env steps that thresholds, recall and lead times come from."""
    act_steps: int = 40_000
    """Env steps behind each gate, and as many without one."""
    num_envs: int = 32
    """Environments behind each gate; those of all gates are one batch."""
    chunk: int = 50
    """Env steps of one compiled call."""
    draws: int = 2000
    """Resamplings of the environments for a 95 % interval."""


@dataclass(frozen=True)
class FarlConfig:
    """One run, from demonstrations to fine-tuned policy."""

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
