"""The offline phase, in the paper's order: clone, improve, recover, model, calibrate."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig
from farl_jax.data import dataset
from farl_jax.data.dataset import Dataset, normalize_rows, to_normalized
from farl_jax.data.margins import foreseen_margin, resolve_margins
from farl_jax.data.practice import Practice
from farl_jax.data.rewards import reward_scale, rewarded
from farl_jax.data.rollout import handing_over, policy_controller, unroll
from farl_jax.nn.normalize import fit_normalizer
from farl_jax.offline import bc, dagger, iql, ope
from farl_jax.offline.improve import make_improve_offline
from farl_jax.safety import risk_critic
from farl_jax.safety.calibration import calibrate
from farl_jax.types import BatchedEnv, Controller, Normalizer, Params, Transition
from farl_jax.world_model import learning, scores
from farl_jax.world_model.windows import to_windows, window_starts

Report = Callable[[str, dict[str, float]], None]


def recovery_rewards(data: Dataset, safe_margin: float | None, lead: float | None) -> Dataset:
    """Rewards of the recovery policy: -1 per failing step, plus progress in units of `safe_margin`.

    A step is terminal if the safe margin is predicted in `lead` steps. The paper gives no rewards.
    Without a margin there is no progress, and terminal steps stay as they are.
    """
    if "margin" not in data or safe_margin is None:
        return data | {"reward": -data["failure"].astype(np.float32)}
    progress = (data["next_margin"] - data["margin"]) / safe_margin
    soon = foreseen_margin(data["next_margin"], data["margin"], lead)
    reward = progress - data["failure"].astype(np.float32)
    return data | {
        "reward": reward.astype(np.float32),
        "terminated": soon >= safe_margin,
    }


def run_offline(
    env: BatchedEnv,
    demos: dict[str, Dataset],
    config: FarlConfig,
    key: jax.Array,
    report: Report,
) -> tuple[Agent, Practice]:
    """Do all offline learning.

    Args:
        env: for its margins, and for rollouts of the cloned policy.
        demos: "task", "failure" and "recovery" demonstrations.
        config: the run's numbers.
        key: consumed.
        report: called with (stage, metrics) after each stage.

    Returns:
        the start of the online phase, and the steps that learnt policies took in the environment.
    """
    nets = Networks.create(config, env.observation_size, env.action_size)
    key_bc, key_roll, key_ensemble, key_task, key_recovery, key_model = jax.random.split(key, 6)
    key_before, key_after = jax.random.split(key_roll)
    scripted = dataset.concatenate(demos["task"], demos["failure"])
    scale = config.iql.reward_scale or reward_scale(
        scripted, env.success_reward, config.iql.discount
    )
    normalizer = fit_normalizer(np.concatenate([part["obs"] for part in demos.values()]), scale)
    clones, nll = bc.make_clone(nets.policy, config.bc)(key_bc, demos["task"], normalizer)
    report("clone", {"nll": nll})
    members = [jax.tree.map(lambda leaf, i=i: leaf[i], clones) for i in range(config.bc.members)]
    half, behave = config.demos.policy_episodes // 2, exploring(nets, normalizer)
    own, practice = practise(env, behave, members, half, config, key_before, report)
    scaled = dataset.concatenate(scripted, *own)
    scaled["reward"] = rewarded(scaled, normalizer, env.success_reward, config.iql.discount)
    everything = dataset.concatenate(scaled, demos["recovery"])
    ensemble, error = ope.make_fit_ensemble(nets.transition, config.offline_ppo, nets.sizes)(
        key_ensemble, to_normalized(everything, normalizer, ("obs", "action", "next_obs"))
    )
    report("transition_ensemble", {"mse": float(error)})

    improve = _make_improve(nets, config, ensemble, normalizer, rows=len(scaled["episode"]))
    policy, critics, metrics = improve(nets.policy, key_task, clones, scaled)
    report("task_policy", metrics)
    given = policy, demos["recovery"], normalizer, config, key_recovery, report
    recovery, answered = _learn_recovery(env, nets, improve, *given)
    behave = rescued(env, nets, normalizer)
    more, after = practise(env, behave, [(policy, recovery)], half, config, key_after, report)
    known = (policy, recovery), (scripted, *own, *more), demos["recovery"], normalizer
    model_params, max_risk = fit_world_model(env, nets, *known, config, key_model, report)
    learnt = Agent(
        policy=policy,
        value=critics.value,
        recovery=recovery,
        world_model=model_params,
        normalizer=normalizer,
        max_risk=max_risk,
    )
    return learnt, practice + after + answered


def _learn_recovery(
    env: BatchedEnv,
    nets: Networks,
    improve: Callable[..., Any],
    policy: Params,
    demonstrations: Dataset,
    normalizer: Normalizer,
    config: FarlConfig,
    key: jax.Array,
    report: Report,
) -> tuple[Params, Practice]:
    """The recovery policy, and counts of the steps that DAgger took for it."""
    key_clone, key_improve = jax.random.split(key)
    actors = nets.policy, nets.recovery
    clones, nll, answered = dagger.clone_recovery(
        env, actors, policy, demonstrations, normalizer, config, key_clone
    )
    margins = resolve_margins(config.demos, env)
    rewarded = recovery_rewards(demonstrations, margins.safe_margin, margins.danger_lead)
    recovery, _, metrics = improve(nets.recovery, key_improve, clones, rewarded)
    report("recovery_policy", metrics | {"nll": nll})
    return recovery, answered


def _make_improve(
    nets: Networks, config: FarlConfig, ensemble: Params, normalizer: Normalizer, rows: int
) -> Callable[..., Any]:
    """Build IQL and offline PPO for both policies. Data of one size share compiled programs."""
    fit_critics = iql.make_fit(nets.value, nets.critic, config.iql, nets.sizes)
    rest = nets.value, nets.critic, nets.transition
    improve = {
        policy: make_improve_offline((policy, *rest), config.offline_ppo)
        for policy in {nets.policy, nets.recovery}
    }

    def run(policy, key, clones, data):
        key_critics, key_improve = jax.random.split(key)
        device = to_normalized(data, normalizer, iql.FIELDS, least=rows)
        critics, losses = fit_critics(key_critics, device)
        params, metrics = improve[policy](key_improve, clones, critics, ensemble, device)
        return params, critics, {k: float(v) for k, v in (losses | metrics).items()}

    return run


Behave = Callable[[Params, jax.Array], tuple[Controller, Any]]
"""(parameters, key) -> (controller, its memory of N environments) of practice."""


def practise(
    env: BatchedEnv,
    behave: Behave,
    members: Sequence[Params],
    episodes: int,
    config: FarlConfig,
    key: jax.Array,
    report: Report,
) -> tuple[tuple[Dataset, ...], Practice]:
    """About `episodes` of learnt policies, the `members` in turn, and counts of them.

    Without interaction there are none.
    """
    if config.demos.interaction == "none":
        return (), Practice()

    def roll(params: Params, key: jax.Array) -> Transition:
        key_reset, key_roll, key_behave = jax.random.split(key, 3)
        controller, memory = behave(params, key_behave)
        return unroll(env, controller, memory, env.reset(key_reset), key_roll, env.episode_limit)[2]

    roll = jax.jit(roll, compiler_options=dict(env.compiler_options))
    batches = max(1, episodes // env.num_envs)
    parts = [
        dataset.from_rollout(roll(members[i % len(members)], key_batch))
        for i, key_batch in enumerate(jax.random.split(key, batches))
    ]
    own = dataset.concatenate(*parts)
    practice = Practice.of(own)
    report("own_failures", {k: float(v) for k, v in vars(practice).items()})
    return (own,), practice


def exploring(nets: Networks, normalizer: Normalizer) -> Behave:
    """The exploring task policy alone."""
    return lambda params, key: (
        policy_controller(nets.policy.apply, params, normalizer, explore=True),
        None,
    )


def rescued(env: BatchedEnv, nets: Networks, normalizer: Normalizer) -> Behave:
    """The exploring task policy, and the recovery policy from a random step on.

    Parameters are (task, recovery). In half of the environments recovery never acts. So the steps
    show what each policy risks if it goes on, at states in which the gate will ask.
    """

    def behave(params: tuple[Params, Params], key: jax.Array) -> tuple[Controller, jax.Array]:
        task, recovery = params
        first, _ = exploring(nets, normalizer)(task, key)
        then = policy_controller(nets.recovery.apply, recovery, normalizer, explore=False)
        steps = jax.random.randint(key, (env.num_envs,), 0, 2 * env.episode_limit)
        return handing_over(first, then), steps

    return behave


def fit_world_model(
    env: BatchedEnv,
    nets: Networks,
    policies: tuple[Params, Params],
    experience: tuple[Dataset, ...],
    recoveries: Dataset,
    normalizer: Normalizer,
    config: FarlConfig,
    key: jax.Array,
    report: Report,
) -> tuple[Params, jax.Array]:
    """Fit on all demonstrations, report on held-out episodes, calibrate eps_safe.

    `policies` are (task, recovery), whose risk is learnt. `experience` is (scripted,) or (scripted,
    of the cloned policy). Whole episodes of each are held out, but none of `recoveries`.
    """
    splits = [dataset.split_by_episode(d, config.world_model.holdout, seed=1) for d in experience]
    training, held_out = (dataset.concatenate(*parts) for parts in zip(*splits, strict=True))
    num_own = sum(len(held["episode"]) for _, held in splits[1:])
    training = dataset.concatenate(training, recoveries)
    discount = config.world_model.discount
    training["reward"] = rewarded(training, normalizer, env.success_reward, discount)
    windows = to_windows(normalize_rows(training, normalizer), config.world_model)
    fit = learning.make_fit_offline(nets.latent, config.world_model, nets.acting(*policies))
    params = fit(key, windows, lambda step, losses: report("world_model", {"step": step} | losses))
    report("failure_head", held_out_report(nets, params, held_out, normalizer, config))
    learnt = Agent(policies[0], None, policies[1], params, normalizer, jnp.asarray(jnp.inf))
    chosen = calibrate(nets, learnt, held_out, num_own, config)
    report("calibration", chosen)
    return params, jnp.asarray(chosen["max_risk"], jnp.float32)


def fit_risk_critic(
    env: BatchedEnv,
    demos: dict[str, Dataset],
    frozen: Agent,
    config: FarlConfig,
    key: jax.Array,
    report: Report,
) -> tuple[Params, Practice]:
    """Fit the risk critic of `simple_critic`, on data like the world model's.

    It uses the task and failure demonstrations, and `policy_episodes` of the exploring offline
    policy, which recovery may take over, because the offline phase's episodes are not stored.
    """
    nets = Networks.create(config, env.observation_size, env.action_size)
    key_roll, key_fit = jax.random.split(key)
    both = rescued(env, nets, frozen.normalizer)
    members = [(frozen.policy, frozen.recovery)]
    episodes = config.demos.policy_episodes
    own, practice = practise(env, both, members, episodes, config, key_roll, report)
    data = dataset.concatenate(demos["task"], demos["failure"], *own)
    fit = risk_critic.make_fit_offline(nets.critic, nets.policy, config.risk_critic)
    rows = risk_critic.to_risk_data(normalize_rows(data, frozen.normalizer))
    log = lambda step, losses: report("risk_critic", {"step": step} | losses)
    return fit(key_fit, frozen.policy, rows, log), practice


def held_out_report(
    nets: Networks,
    params: Params,
    held_out: Dataset,
    normalizer: Normalizer,
    config: FarlConfig,
) -> dict[str, float]:
    """AUROC, AUPRC and calibration error per horizon step on held-out episodes, logged actions."""
    length = config.world_model.train_horizon
    starts = window_starts(held_out, length, config.world_model.failing_run_cap)
    index = np.arange(length)[:, None] + starts
    predict = jax.jit(learning.predict_failures, static_argnums=0)
    rows = normalize_rows(held_out, normalizer)
    probability = predict(nets.latent, params, rows["obs"][starts], rows["action"][index])
    labels = held_out["failure"]
    fresh = ~held_out["failure"][starts]
    return scores.failure_report(np.asarray(probability), labels[index], fresh)
