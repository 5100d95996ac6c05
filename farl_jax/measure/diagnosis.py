"""Quality of the world model's failure prediction, on rollouts without a gate.

All functions take a rollout [T, N] of the task policy alone, with its risk. A gate that acts would
prevent the failures that it predicts, so these could not be measured.
"""

from typing import Any

import chex
import jax
import numpy as np

from farl_jax.config import FarlConfig
from farl_jax.data.dataset import Dataset
from farl_jax.safety import calibration
from farl_jax.types import Normalizer, Params
from farl_jax.world_model import learning, scores
from farl_jax.world_model.latent import LatentModel
from farl_jax.world_model.windows import window_starts

PARTS = {"hand": slice(0, 3), "object": slice(4, 7)}
"""Positions in an observation, m, with reported decoding errors."""


def later_failures(
    failure: np.ndarray, done: np.ndarray, horizon: int
) -> tuple[np.ndarray, np.ndarray]:
    """(C(s, a) of the step i later [H + 1, T, N], whether it is known), i = 0..H.

    After the end of its episode nothing fails. Steps beyond the rollout are unknown.
    """
    chex.assert_rank(failure, 2)
    chex.assert_equal_shape([failure, done])
    labels = np.zeros((horizon + 1, *failure.shape), bool)
    known = np.zeros_like(labels)
    length = len(failure)
    for t in range(length):
        alive = np.ones(failure.shape[1], bool)
        for i in range(horizon + 1):
            if t + i >= length:
                known[i, t] = ~alive
                continue
            labels[i, t] = failure[t + i] & alive
            known[i, t] = True
            alive &= ~done[t + i]
    return labels, known


def reach(gamma_risk: float, limit: int) -> int:
    """Steps after which gamma_risk^k is below 1 %, at most `limit`."""
    if gamma_risk in (0.0, 1.0):
        return limit if gamma_risk else 0
    return min(limit, int(np.ceil(np.log(0.01) / np.log(gamma_risk))))


def foresight(
    probability: np.ndarray, labels: np.ndarray, known: np.ndarray, failing: np.ndarray
) -> dict[str, Any]:
    """AUROC, AUPRC, calibration error and base rate per imagined step, over steps not failing.

    Arrays are [H + 1, T, N]. `probability` is p_i of the imagined policy. Steps `failing` [T, N]
    are left out. Without steps the measures are NaN.
    """
    chex.assert_rank([labels, failing], [3, 2])
    chex.assert_equal_shape([probability, labels, known])
    chex.assert_equal_shape_suffix([labels, failing], 2)
    calm = ~failing
    report: dict[str, list[float]] = {"auroc": [], "auprc": [], "ece": [], "rate": []}
    for i in range(1, len(labels)):
        use = calm & known[i]
        p, label = probability[i][use], labels[i][use]
        report["auroc"].append(scores.auroc(p, label))
        report["auprc"].append(scores.average_precision(p, label))
        report["ece"].append(scores.calibration_error(p, label))
        report["rate"].append(float(label.mean()) if len(label) else float("nan"))
    return report


def reliability(
    cost: np.ndarray,
    labels: np.ndarray,
    known: np.ndarray,
    failing: np.ndarray,
    gamma_risk: float,
    bins: int = 10,
) -> dict[str, list[float]]:
    """Predicted risk [T, N] against the realised one, in bins of equal size.

    Realised is gamma_risk^k if the first failure comes k steps later, and 0 if none comes. `events`
    is the number of steps in a bin that a failure follows.
    """
    chex.assert_equal_shape([labels, known])
    chex.assert_equal_shape([cost, failing, labels[0]])
    use = ~failing & known.all(0)
    followed = labels.any(0)[use]
    realised = np.where(followed, gamma_risk ** labels.argmax(0)[use], 0.0)
    order = np.argsort(cost[use], kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return {
        "predicted": [float(cost[use][part].mean()) for part in parts],
        "realised": [float(realised[part].mean()) for part in parts],
        "events": [float(followed[part].sum()) for part in parts],
    }


def worst_factor(bins: dict[str, list[float]], least: int = 50) -> float:
    """Largest factor, >= 1, between predicted and realised risk, in bins with `least` events.

    It is NaN if no bin has so many. A prediction below 1e-9 counts as 1e-9.
    """
    rows = zip(bins["predicted"], bins["realised"], bins["events"], strict=True)
    pairs = [(max(p, 1e-9), q) for p, q, events in rows if events >= least]
    return max((max(p / q, q / p) for p, q in pairs), default=float("nan"))


def in_time_order(done: np.ndarray, *steps: np.ndarray) -> tuple[np.ndarray, ...]:
    """(episode number [N T], each of `steps` [T, N] as [N T]), one environment after the other."""
    chex.assert_rank(done, 2)
    chex.assert_equal_shape([done, *steps])
    flat = lambda x: np.swapaxes(x, 0, 1).reshape(-1)
    begins = np.ones_like(done)
    begins[1:] = done[:-1]
    return np.cumsum(flat(begins)), *(flat(x) for x in steps)


def gate_report(
    cost: np.ndarray,
    labels: np.ndarray,
    done: np.ndarray,
    max_risk: float,
    lead_time: int,
    window: int = 10,
) -> dict[str, float]:
    """Alarms of a gate with eps_safe = `max_risk`.

    trigger_rate: share of steps not failing with an alarm. precision: share of these alarms with a
    failure within H steps. recall: share of failure onsets with an alarm `lead_time` to `window`
    steps before. lead: median steps from the first alarm in `window` to the onset.
    """
    chex.assert_rank(labels, 3)
    chex.assert_equal_shape([cost, done, labels[0]])
    calm, alarm = ~labels[0], cost > max_risk
    fired = alarm & calm
    soon = labels[1:].any(0)
    episode, failure, risk = in_time_order(done, labels[0], cost)
    peaks = calibration.foreseen_peaks(risk, failure, episode, lead_time, window)
    leads = []
    for onset in calibration.failure_onsets(failure, episode):
        ahead = np.arange(max(0, onset - window), onset)
        ahead = ahead[(episode[ahead] == episode[onset]) & (risk[ahead] > max_risk)]
        leads += [onset - ahead[0]] if len(ahead) else []
    return {
        "max_risk": float(max_risk),
        "trigger_rate": float(fired.sum() / calm.sum()) if calm.any() else float("nan"),
        "precision": float((fired & soon).sum() / fired.sum()) if fired.any() else float("nan"),
        "recall": float((peaks > max_risk).mean()) if len(peaks) else float("nan"),
        "lead": float(np.median(leads)) if leads else float("nan"),
        "onsets": float(len(peaks)),
    }


def decoder_errors(
    model: LatentModel, params: Params, normalizer: Normalizer, data: Dataset, config: FarlConfig
) -> dict[str, list[float]]:
    """Root mean square distance, m, of decoded from true positions, per step of executed actions.

    Windows of the training length from the rollout's episodes, at most 4,096 of them.
    """
    length = config.world_model.train_horizon
    starts = window_starts(data, length, config.world_model.failing_run_cap)
    starts = starts[:: max(1, len(starts) // 4096)][:4096]
    index = np.arange(length)[:, None] + starts

    @jax.jit
    def decoded(obs: jax.Array, actions: jax.Array) -> jax.Array:
        z, _ = learning.roll_latents(model, params, normalizer(obs), actions)
        return model.apply(params, z, method="decode") * normalizer.std + normalizer.mean

    error = np.asarray(decoded(data["obs"][starts], data["action"][index])) - data["obs"][index]
    return {
        name: [float(x) for x in np.sqrt((error[..., part] ** 2).sum(-1).mean(1))]
        for name, part in PARTS.items()
    }
