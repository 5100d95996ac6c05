"""Settings of the online phase: the gate, the learners, the constraint. See `farl_jax.config`."""

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
Form = Literal["first_passage", "sum"]
Treatment = Literal["executed", "masked", "relabelled"]
Dynamics = Literal["nominal", "shifted"]


@dataclass(frozen=True)
class AdaptationConfig(Checked):
    """The world model's learning during the online phase."""

    every: Natural = 1
    """Policy updates between two chunks of world model updates. 0 freezes it, as in the paper."""
    learning_rate: Positive = 3e-4
    windows: Count = 8192
    """Windows of online steps that are kept. Each rollout adds `windows_per_rollout`."""
    failing_windows: Count = 4096
    """Windows with a failure that are kept beside them."""
    windows_per_rollout: Annotated[
        int, Range(1, "adaptation.windows"), Range(1, "adaptation.failing_windows")
    ] = 160
    memory: Annotated[int, Range(2)] = 32
    """Number of rollouts after which a window's weight is 1/e, in batches and in the estimated rate
    of failing windows."""


@dataclass(frozen=True)
class SafetyConfig(Checked):
    """The gate: the recovery policy acts when a rule on the risk R holds. R lies in [0, 1]."""

    rule: Rule = "paper"
    """paper: R_task(s, a_task) > eps_safe (will the task policy fail?). helps: also, the recovery
    policy's risk is lower by more than `delta`. shield: R_rec(s, a_task) > eps_safe (could recovery
    fail after this action?), and it is lower by more than `delta` if recovery begins now."""
    form: Form = "first_passage"
    """first_passage: R, the probability of a first failure. sum: the paper's C_H, the expected
    number of failing steps, up to H + 1. It has no tail."""
    delta: Share = 0.02
    """helps, shield: what recovery must lower the risk by. What it cannot save is left alone."""
    release: Share = 0.5
    """A recovery goes on until the risk is at most `release` times eps_safe."""
    tail: bool = True
    """Whether the risk beyond the horizon counts, by the world model's risk heads. The paper has no
    tail."""
    horizon: Annotated[int, Range(-1, "world_model.train_horizon", high_open=True)] = 1
    """H, imagined steps of R. -1 leaves the tail alone, a critic on latents."""
    hold: Count = 1
    """Imagined steps for which each action is held. Asking the policy is most of R's cost. The
    paper has 1."""
    control_share: Share = 0.05
    """Share of training episodes that have no gate, drawn at random: the control group. What the
    gate blocks cannot show that it was safe, and only these episodes do. They also tell what the
    gate prevents."""
    max_risk: NonNegative | None = 0.1
    """eps_safe. None takes the value calibrated on held-out episodes."""
    trigger_rate: Fraction | None = 0.03
    """Share of the steps before an episode's first failure at which recovery acts. eps_safe follows
    it, from `max_risk` on. None keeps eps_safe there."""
    min_risk: Positive = 1e-3
    """Lower bound of eps_safe under `trigger_rate`."""
    min_recovery_steps: Count = 1
    """A recovery lasts at least this many steps."""
    max_recovery_steps: Annotated[int, Range("safety.min_recovery_steps")] = 60
    """After this many recovery steps in a row the task policy acts once, to avoid a deadlock."""
    patience: Count = 60
    """An alarm of this many steps, pauses included, counts as false: the gate stays silent for a
    while. If the gate always blocked an action, the model would never learn that it was safe."""
    target_recall: Share = 0.9
    """Calibration: share of failures to foresee."""
    target_trigger_rate: Share = 0.1
    """Calibration: upper bound of the trigger rate, which takes precedence."""
    lead_time: Natural = 2
    """Calibration: a failure is foreseen if the gate triggers at least this many steps before."""


@dataclass(frozen=True)
class RiskCriticConfig(Checked):
    """`simple_critic`: Recovery RL's risk critic is the gate instead of the world model.

    It stores as many online steps and learns from as many samples as the world model
    (`farl_jax.config.steps_per_sample`).
    """

    gamma_risk: Discount = 0.97
    max_risk: Share = 0.25
    """eps_risk: the recovery policy acts when Q_risk exceeds it. It follows `safety.trigger_rate`,
    as eps_safe does."""
    steps: Count = 8000
    batch: Count = 320
    failure_share: Share = 0.3
    """Share of each batch drawn from failing steps."""
    learning_rate: Positive = 3e-4
    target_rate: Rate = 0.01
    every: Natural = 1
    """Policy updates between two chunks of critic updates online. 0 freezes the critic."""
    chunk: Count = 4
    """Updates in one compiled call."""
    transitions: Count = 40_960
    """Online steps that are kept. Each rollout adds `transitions_per_rollout`."""
    failing_transitions: Count = 20_480
    """Failing steps that are kept beside them."""
    transitions_per_rollout: Annotated[
        int, Range(1, "risk_critic.transitions"), Range(1, "risk_critic.failing_transitions")
    ] = 800
    memory: Annotated[int, Range(2)] = 32
    """Number of rollouts after which a step's weight in batches is 1/e."""


@dataclass(frozen=True)
class MPPIConfig(Checked):
    """`mppi`: recovery planned through the world model.

    The defaults suit two CPU cores. On a GPU use 256 samples, 32 elites and 4 iterations.
    """

    samples: Count = 64
    elites: Annotated[int, Range(1, "mppi.samples")] = 8
    iterations: Count = 2
    horizon: Count = 4
    temperature: NonNegative = 0.5
    """An elite of value V has weight exp(temperature (V - V_max)). 0 gives their plain mean."""
    min_std: NonNegative = 0.05
    max_std: Annotated[float, Range("mppi.min_std")] = 1.0
    """Largest standard deviation of a plan, and its first one."""
    failure_weight: NonNegative = 10.0
    """Cost of one certain failing step in a plan, in scaled rewards."""
    slots: Count = 8
    """Environments planned for in one pass. If more trigger, further passes follow."""


@dataclass(frozen=True)
class OnlineConfig(Checked):
    """Online PPO on the executed steps."""

    env_steps: Count = 1_000_000
    """Env steps of training, over all environments."""
    episodes: Count | None = None
    """Training ends with this many finished episodes, over all environments, if it has not ended
    before. Later steps of the last rollout do not count. None: `env_steps` alone decides."""
    whole_episodes: Natural = 0
    """Episodes that each environment plays between two updates, the first one from a new start.
    Later steps of the rollout do not count. 0: an update comes every `rollout` steps, also in the
    middle of an episode."""
    dynamics: Dynamics = "nominal"
    """shifted: train and evaluate in dynamics drawn from the run's seed, a stand-in for a real
    robot. Demonstrations and the offline phase keep the nominal ones."""
    num_envs: Count = 128
    """Environments that train at once."""
    rollout: Count = 32
    """Steps of each environment between two updates."""
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
    """An update stops when a minibatch's KL estimate exceeds this value."""
    critic_warmup: Natural = 40_000
    """Env steps before the actor learns. The offline V was fitted to other policies."""
    treatment: Treatment = "relabelled"
    """Recovered steps in PPO's policy loss. executed: with the executed action. masked: left out.
    relabelled: with the task policy's own action."""
    log_prob_floor: float = -10.0
    """executed: actions with a lower log-probability are left out of the policy loss."""
    max_log_ratio: Positive = 2.0
    eval_every: Count = 100_000
    """Env steps between two evaluations."""
    eval_episodes: Count = 64
    """Episodes of one evaluation, all at once."""
    final_episodes: Count = 256
    """Episodes of the first and last evaluation, in rounds of `eval_episodes`."""
    checkpoint_every: Count = 200_000
    max_diverged: Share = 0.01
    """Share of episodes in which the simulator may diverge. If more do, the run stops."""


@dataclass(frozen=True)
class ConstraintConfig(Checked):
    """The safe-RL baselines PPO-Lagrangian, P3O and CPO: their cost limit and how they keep it."""

    limit: Discount = 0.05
    """d, the share of episodes that may fail. Our comparison uses 0.02, 0.05 and 0.1."""
    discount: Discount = 0.99
    """Discount of the cost in V_C and its advantages. 1 - discount turns J_C - d from episodes to
    steps."""
    trace: Share = 0.95
    window: Count = 100
    """J_C is the share of failure episodes among about this many latest episodes."""
    fit_steps: Natural = 500
    """Updates of V_C on the demonstrations, before the online phase."""
    fit_batch: Count = 256
    fit_learning_rate: Positive = 1e-3
    multiplier_rate: NonNegative = 0.5
    """PPO-Lagrangian: an update adds this times J_C - d to the multiplier."""
    multiplier_cap: Positive = 1.5
    """Upper bound of the multiplier. Both advantages are standardised, so at 1 cost and reward
    weigh the same, and the bound must be above 1. Far above it, soccer is not learnt."""
    penalty: NonNegative = 20.0
    """P3O: kappa, the weight of the penalty."""
    max_kl: Positive = 0.01
    """CPO: trust region of one update, the KL summed over action dimensions, mean over states."""
    cg_steps: Count = 10
    cg_damping: NonNegative = 0.1
    curvature_stride: Count = 4
    """CPO: the KL's curvature is measured on every n-th step of a rollout."""
    backtracks: Count = 15
    backtrack: Fraction = 0.8
    """CPO: each of at most `backtracks` trials shortens the step by this factor."""
