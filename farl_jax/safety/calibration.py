"""Calibration of eps_safe on held-out episodes: the largest threshold with enough recall."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from farl_jax.agent import Agent, Networks
from farl_jax.config import FarlConfig, SafetyConfig
from farl_jax.data.dataset import Dataset
from farl_jax.safety.gate import Gate
from farl_jax.safety.imagination import make_imagined_risk


def failure_onsets(failure: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """Indices at which a run of failing steps begins. Steps in time order [M] -> [onsets]."""
    chex.assert_rank(failure, 1)
    chex.assert_equal_shape([failure, episode])
    before = np.concatenate([[False], failure[:-1] & (episode[1:] == episode[:-1])])
    return np.flatnonzero(failure & ~before)


def foreseen_peaks(
    cost: np.ndarray, failure: np.ndarray, episode: np.ndarray, lead_time: int, window: int = 10
) -> np.ndarray:
    """Highest risk in the `window` to `lead_time` steps before each failure onset: [onsets].

    Inputs are steps in time order [M]. Onsets with fewer than `lead_time` earlier steps in their
    episode are left out. The gate foresees an onset if its peak exceeds eps_safe.
    """
    chex.assert_equal_shape([cost, failure, episode])
    peaks = []
    for onset in failure_onsets(failure, episode):
        ahead = np.arange(max(0, onset - window), onset - lead_time + 1)
        ahead = ahead[episode[ahead] == episode[onset]]
        if len(ahead):
            peaks.append(cost[ahead].max())
    return np.asarray(peaks)


def calibrate_max_risk(
    cost: np.ndarray,
    failure: np.ndarray,
    episode: np.ndarray,
    policys_own: np.ndarray,
    config: SafetyConfig,
) -> dict[str, float]:
    """Choose eps_safe on held-out steps in time order [M].

    It is the largest threshold that foresees `target_recall` of the failure onsets `lead_time`
    steps ahead, because that one intervenes least. It is raised if more than `target_trigger_rate`
    of the task policy's own safe steps would trigger. If it made none, all safe steps count.

    Args:
        cost: risk of each step.
        failure: C(s, a) of each step, bool.
        episode: episode number of each step.
        policys_own: whether the task policy collected the step, bool.
        config: target recall and trigger rate, lead time.

    Returns:
        max_risk, recall, trigger_rate, onsets (number of those that could be foreseen).
    """
    chex.assert_equal_shape([cost, policys_own])
    peaks = foreseen_peaks(cost, failure, episode, config.lead_time)
    calm = cost[~failure & (policys_own | ~policys_own.any())]
    least_risk = float(np.quantile(calm, 1.0 - config.target_trigger_rate))
    wanted = (
        float(np.quantile(peaks, 1.0 - config.target_recall, method="lower")) if len(peaks) else 0.0
    )
    max_risk = max(np.nextafter(np.float32(wanted), np.float32(-1.0)), least_risk)
    return {
        "max_risk": float(max_risk),
        "recall": float((peaks > max_risk).mean()) if len(peaks) else float("nan"),
        "trigger_rate": float((calm > max_risk).mean()),
        "onsets": float(len(peaks)),
    }


def calibrate(
    nets: Networks, learnt: Agent, held_out: Dataset, num_own: int, config: FarlConfig
) -> dict[str, float]:
    """Choose eps_safe by the risk of the logged action at every held-out step.

    It uses both policies, world model and normaliser of `learnt`. The task policy collected the
    last `num_own` steps of `held_out`.
    """
    gate = Gate.create(config.safety.horizon, config.world_model.gamma_risk, jnp.inf)

    @jax.jit
    def cost_of(learnt: Agent, obs: jax.Array, action: jax.Array) -> jax.Array:
        return make_imagined_risk(nets, learnt, gate, config.safety)(obs, action).risk

    cost = cost_of(learnt, learnt.normalizer(held_out["obs"]), held_out["action"])
    own = np.arange(len(cost)) >= len(cost) - num_own
    return calibrate_max_risk(
        np.asarray(cost), held_out["failure"], held_out["episode"], own, config.safety
    )
