"""Settings of the online phase: what acts, what learns, what it may cost; see `farl_jax.config`."""

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

Rule = Literal["paper", "helps", "shield"]
Treatment = Literal["executed", "masked", "relabelled"]


@dataclass(frozen=True)
class AdaptationConfig(Checked):
    """The world model's learning during the online phase."""

    every: Natural = 8
    """Policy updates between two chunks of world model updates; 0 freezes it, as in the paper."""
    learning_rate: Positive = 3e-4
    windows: Count = 4096
    """Windows of the run's own steps that are kept; as many as `windows_per_rollout` are new."""
    failing_windows: Count = 2048
    windows_per_rollout: Annotated[
        int, Range(1, "adaptation.windows"), Range(1, "adaptation.failing_windows")
    ] = 64
    memory: Annotated[int, Range(2)] = 32
    """Rollouts. A window that is this old counts 1/e of what a new one does, in what is drawn and
    in the rate of failing windows."""


@dataclass(frozen=True)
class SafetyConfig(Checked):
    """The gate: recover when the risk exceeds eps_safe."""

    rule: Rule = "paper"
    """paper: R_task(s, a_task) > eps_safe, "will I fail if I go on?"; helps: that, and recovery
    would leave at least `delta` less risk; shield: R_rec(s, a_task) > eps_safe, "could recovery not
    be trusted any more if I let this happen?"."""
    delta: Share = 0.01
    release: Share = 1.0
    """A recovery, once begun, goes on until the risk is at most this share of eps_safe."""
    tail: bool = False
    """Whether the risk beyond the horizon counts, by the world model's learnt tail."""
    horizon: Annotated[int, Range(-1, "world_model.train_horizon", high_open=True)] = 12
    """H, the last imagined step whose failure counts; -1 is the tail alone, a critic."""
    hold: Count = 3
    """Imagined steps for which each action is held; asking the task policy is most of C_H's cost.
    1 is the paper's."""
    max_risk: Annotated[float, Range(0, 1)] | None = 1e-2
    """eps_safe; None takes the value calibrated on held-out episodes, mostly more cautious."""
    failure_limit: Fraction | None = None
    """Share of episodes that may fail: where twice as many do, eps_safe is half of `max_risk`, and
    so on, down to `min_risk`. None leaves it at `max_risk`."""
    limit_memory: Annotated[int, Range(2)] = 1000
    """Episodes. One that ended this many ago counts 1/e of a new one in the share that fails."""
    min_risk: Positive = 1e-2
    min_recovery_steps: Count = 1
    """A recovery, once begun, lasts at least this long."""
    max_recovery_steps: Annotated[int, Range("safety.min_recovery_steps")] = 25
    """After this many recovery steps in a row the task policy acts once, so nothing deadlocks."""
    patience: Count = 60
    """An alarm that lasts this many steps, pauses of up to `gate.PAUSE` included, is taken for
    false, and the gate keeps quiet for `gate.QUIET` steps. Otherwise what it forbids could never
    show the model its error."""
    target_recall: Share = 0.9
    target_trigger_rate: Share = 0.1
    lead_time: Natural = 2
    """Calibration: a failure is foreseen if the gate fires at least this many steps before."""


@dataclass(frozen=True)
class RiskCriticConfig(Checked):
    """`simple_critic`: Recovery RL's risk critic, which gates in the world model's place.

    It learns from as many samples of as many stored steps as the world model
    (`farl_jax.config.steps_per_sample`).
    """

    gamma_risk: Discount = 0.85
    max_risk: Share = 0.25
    """eps_risk: recover when Q_risk exceeds it."""
    steps: Count = 12_000
    batch: Count = 312
    failure_share: Share = 0.3
    """Share of each batch drawn from failing steps."""
    learning_rate: Positive = 3e-4
    target_rate: Rate = 0.01
    every: Natural = 8
    """Policy updates between two chunks of the critic's updates online; 0 freezes it."""
    chunk: Count = 100
    """Updates of one compiled call."""
    transitions: Count = 53_248
    """Steps of the run that are kept; as many as `transitions_per_rollout` are new."""
    failing_transitions: Count = 26_624
    transitions_per_rollout: Annotated[
        int, Range(1, "risk_critic.transitions"), Range(1, "risk_critic.failing_transitions")
    ] = 832
    memory: Annotated[int, Range(2)] = 32
    """Rollouts, as `adaptation.memory`."""


@dataclass(frozen=True)
class MPPIConfig(Checked):
    """`mppi`: recovery planned through the world model.

    A setting for two CPU cores. On a GPU: 256 samples, 32 elites, 4 iterations.
    """

    samples: Count = 64
    elites: Annotated[int, Range(1, "mppi.samples")] = 8
    iterations: Count = 2
    horizon: Count = 8
    temperature: NonNegative = 0.5
    """Elites weigh exp(temperature (V - V_max)); 0 is their plain mean, infinity the best one."""
    min_std: NonNegative = 0.05
    max_std: Annotated[float, Range("mppi.min_std")] = 1.0
    """Also what a plan starts from."""
    failure_weight: NonNegative = 10.0
    """w, in scaled rewards: what one certainly failing step costs a plan."""
    slots: Count = 8
    """Environments planned for at once; further ones follow in more passes, no step has fewer
    than it needs."""


@dataclass(frozen=True)
class OnlineConfig(Checked):
    """Online PPO on what was really executed."""

    env_steps: Count = 1_000_000
    num_envs: Count = 128
    rollout: Count = 32
    epochs: Count = 5
    minibatches: Count = 16
    actor_learning_rate: Positive = 1e-4
    critic_learning_rate: Positive = 1e-3
    clip: Fraction = 0.2
    discount: Discount = 0.99
    trace: Share = 0.95
    entropy: NonNegative = 0.0
    max_grad_norm: Positive = 0.5
    target_kl: Positive = 0.03
    """An update stops when a minibatch's KL estimate exceeds this."""
    critic_warmup: Natural = 40_000
    """Steps before the actor moves: the offline V judged other behaviour than the task policy's."""
    reward_scale: Positive = 0.01
    treatment: Treatment = "relabelled"
    """What PPO's policy loss sees of a recovered step."""
    log_prob_floor: float = -10.0
    """`executed`: recovered actions less likely than this are left out of the policy loss."""
    max_log_ratio: Positive = 2.0
    eval_every: Count = 100_000
    eval_episodes: Count = 64
    """Episodes of one evaluation: as many environments at once."""
    final_episodes: Count = 256
    """Episodes of the evaluations before and after training, in rounds of `eval_episodes`."""
    checkpoint_every: Count = 200_000
    max_diverged: Share = 0.01
    """Share of the episodes in which the simulator may fail; if more do, the run stops."""


@dataclass(frozen=True)
class ConstraintConfig(Checked):
    """The safe-RL baselines PPO-Lagrangian, P3O and CPO: what they may cost, and how they obey."""

    limit: Discount = 0.05
    """d, the share of episodes that may fail; to be compared over 0.02, 0.05 and 0.1."""
    discount: Discount = 0.99
    """Of the cost to come, in V_C and its advantages; 1 - discount turns an excess of episodes
    into one of steps."""
    trace: Share = 0.95
    window: Count = 100
    """J_C is the failing share of about this many episodes that ended last."""
    fit_steps: Natural = 500
    """Steps of V_C on the demonstrations, before the online phase."""
    fit_batch: Count = 256
    fit_learning_rate: Positive = 1e-3
    multiplier_rate: NonNegative = 0.5
    """PPO-Lagrangian: lambda's rise per update and unit of J_C - d."""
    multiplier_cap: Positive = 1.5
    """Both advantages are standardised: at 1 the cost weighs as much as the reward, so the cap must
    lie above it. Far above, soccer's policy never learns the task (docs/experiments.md, row 90)."""
    penalty: NonNegative = 20.0
    """P3O's kappa."""
    max_kl: Positive = 0.01
    """CPO's trust region: mean KL over states, summed over action dimensions, per update."""
    cg_steps: Count = 10
    cg_damping: NonNegative = 0.1
    curvature_stride: Count = 4
    """CPO measures the KL's curvature on every n-th step of a rollout."""
    backtracks: Count = 15
    backtrack: Fraction = 0.8
    """CPO tries its step at most `backtracks` times, each time shorter by this factor."""
