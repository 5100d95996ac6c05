"""The horizon study: many gates (H, gamma_risk, eps_safe) on one frozen policy.

Watching: on ungated rollouts p_0..p_Hmax are imagined once. Each gate's risk, without a tail, is a
masked sum of them (`imagination.first_passage`), and its eps_safe gives all gates the same trigger
rate on calm steps. Acting: each gate has N environments, with the same starts, noise and resets. A
gate that never triggers is the baseline. Axes: G gates, T time, N environments.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from farl_jax.agent import Agent, Networks
from farl_jax.config import SafetyConfig
from farl_jax.data.rollout import unroll
from farl_jax.measure import diagnosis
from farl_jax.measure.evaluate import normalized_return
from farl_jax.measure.intervals import reduction, wilson_interval
from farl_jax.online.counters import Counters
from farl_jax.safety import calibration, imagination
from farl_jax.safety.gate import Gate, GateMemory
from farl_jax.types import BatchedEnv, Controller


def make_costs(nets: Networks, config: SafetyConfig, max_horizon: int) -> Callable[..., jax.Array]:
    """Build a jitted `costs(learnt, gates [G], obs [..., D], action [..., A]) -> C_H [G, ...]`.

    The probabilities are imagined once for all gates. Only their weighted sums differ.
    """

    def costs(learnt: Agent, gates: Gate, obs: jax.Array, action: jax.Array) -> jax.Array:
        given = learnt.normalizer(obs), action, max_horizon, config.hold
        probability = imagination.imagined_failures(nets, learnt, *given)
        none = jnp.zeros(probability.shape[1:])
        risk = lambda gate: imagination.accumulated(probability, none, gate, config)
        return jax.vmap(risk)(gates)

    return jax.jit(costs)


def matched_thresholds(cost: np.ndarray, calm: np.ndarray, rates: Sequence[float]) -> np.ndarray:
    """eps_safe [R, G] at which C_H `cost` [G, T, N] exceeds it on a share `rates` of calm steps.

    Ties, for example of a saturated failure head, leave a gate below its rate, never above. Without
    calm steps it is NaN, at which no gate triggers.
    """
    chex.assert_rank([cost, calm], [3, 2])
    chex.assert_equal_shape_suffix([cost, calm], 2)
    if not calm.any():
        return np.full((len(rates), len(cost)), np.nan)
    return np.quantile(cost[:, calm], 1.0 - np.asarray(rates), axis=1, method="higher")


def foresight(
    cost: np.ndarray, labels: np.ndarray, done: np.ndarray, max_risk: float, lead_time: int
) -> dict[str, Any]:
    """Failures that one gate predicts on an ungated rollout.

    Args:
        cost: its C_H [T, N].
        labels: C(s, a) of the step i later [Hmax + 1, T, N]. Every gate is judged over Hmax steps.
        done: [T, N].
        max_risk: its eps_safe.
        lead_time: least steps from an alarm to the failure, for `recall`.

    Returns:
        `diagnosis.gate_report`, and recall_by_lead [Hmax]: share of failure onsets with an alarm at
        least 1, 2, ... Hmax steps before, among onsets with so many steps before them.
    """
    chex.assert_rank([labels, cost], [3, 2])
    window = len(labels) - 1
    report = diagnosis.gate_report(cost, labels, done, max_risk, lead_time, window)
    episode, failure, risk = diagnosis.in_time_order(done, labels[0], cost)
    peaks = [
        calibration.foreseen_peaks(risk, failure, episode, lead, window)
        for lead in range(1, window + 1)
    ]
    recall = [float((p > max_risk).mean()) if len(p) else float("nan") for p in peaks]
    return report | {"recall_by_lead": recall}


@struct.dataclass
class Trial:
    """State of all acting gates, [G, N] in every field."""

    memory: GateMemory
    env_state: Any
    counters: Counters
    calm: jax.Array  # i32 steps not failing
    alarms: jax.Array  # i32 of those, with C_H > eps_safe


def make_trial(
    env: BatchedEnv,
    controller_of: Callable[[Agent, Gate], Controller],
    start_memory: Callable[[], GateMemory],
    length: int,
) -> tuple[Callable[[Gate, jax.Array], Trial], Callable[..., Trial]]:
    """Build jitted `start(gates [G], key)` and `advance(trial, learnt, gates, key)` by `length`.

    Each gate has the N environments of `env`. A row depends only on its gate and the key, so other
    gates do not change it.
    """

    def start(gate: Gate, key: jax.Array) -> Trial:
        none = jnp.zeros(env.num_envs, jnp.int32)
        counters = jax.tree.map(
            lambda x: jnp.zeros(env.num_envs, x.dtype), jax.eval_shape(Counters.zero)
        )
        return Trial(start_memory(), env.reset(key), counters, calm=none, alarms=none)

    def advance(trial: Trial, learnt: Agent, gate: Gate, key: jax.Array) -> Trial:
        controller = controller_of(learnt, gate)
        memory, env_state, steps, _ = unroll(
            env, controller, trial.memory, trial.env_state, key, length
        )
        calm = ~steps.failure
        fired = calm & (steps.decision.risk > gate.max_risk)
        return Trial(
            memory=memory,
            env_state=env_state,
            counters=jax.vmap(Counters.add, in_axes=(0, 1))(trial.counters, steps),
            calm=trial.calm + calm.sum(0, dtype=jnp.int32),
            alarms=trial.alarms + fired.sum(0, dtype=jnp.int32),
        )

    options = dict(env.compiler_options)
    return (
        jax.jit(jax.vmap(start, in_axes=(0, None)), compiler_options=options),
        jax.jit(
            jax.vmap(advance, in_axes=(0, None, 0, None)),
            compiler_options=options,
            donate_argnums=0,
        ),
    )


def outcomes(trial: Trial, env: BatchedEnv, draws: int) -> list[dict[str, Any]]:
    """Results of each gate, one row per gate. The last gate is the baseline.

    reduction_percent compares failure episodes with the baseline's at equal env steps. Each
    estimate has 95 % limits: failure_rate by episodes (Wilson), reduction_percent by the two
    counts, all others by resampling the N environments. Undefined numbers are NaN.
    """
    host = jax.device_get(trial)
    tally = {k: np.asarray(v, float) for k, v in vars(host.counters).items()}
    tally |= {"calm": np.asarray(host.calm, float), "alarms": np.asarray(host.alarms, float)}
    index = np.random.default_rng(0).integers(0, env.num_envs, (draws, env.num_envs))
    baseline, rows = float(tally["failure_episodes"][-1].sum()), []
    for g in range(len(host.calm)):
        own = {k: v[g] for k, v in tally.items()}
        estimates = _estimates(own, env)
        drawn = _estimates({k: v[index] for k, v in own.items()}, env)
        limits = {f"{k}_interval": np.quantile(v, [0.025, 0.975]) for k, v in drawn.items()}
        episodes, failures = (int(own[k].sum()) for k in ("episodes", "failure_episodes"))
        least, fewer, most = reduction(failures, baseline)
        rows.append(
            {"episodes": episodes, "failure_episodes": failures}
            | {k: float(v) for k, v in estimates.items()}
            | {k: [float(x) for x in v] for k, v in limits.items()}
            | {"failure_rate_interval": list(wilson_interval(failures, episodes))}
            | {"reduction_percent": fewer, "reduction_percent_interval": [least, most]}
        )
    return rows


def _estimates(tally: Mapping[str, np.ndarray], env: BatchedEnv) -> dict[str, np.ndarray]:
    """Ratios of sums over environments, [..., N] -> [...]; NaN if a denominator is 0."""
    total = {k: v.sum(-1) for k, v in tally.items()}
    share = lambda part, whole: np.where(whole > 0, part / np.maximum(whole, 1.0), np.nan)
    per_episode = lambda name: share(total[name], total["episodes"])
    steps = total["calm"] + total["failing_steps"]
    mean_return = per_episode("return_sum")
    return {
        "failure_rate": per_episode("failure_episodes"),
        "return": normalized_return(mean_return, env.random_return, env.expert_return),
        "success": per_episode("successes"),
        "trigger_rate": share(total["alarms"], total["calm"]),
        "recovered_share": total["recovered_steps"] / steps,
    }
