"""Windows of an episode's steps, which the world model learns from, and failures in them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from farl_jax.config import WorldModelConfig
from farl_jax.data.dataset import Dataset, DatasetError, pad_to_power_of_two


@struct.dataclass
class Windows:
    """Windows of L consecutive steps inside one episode, sampled by their first step."""

    obs: jax.Array  # [P, D] normalised
    next_obs: jax.Array  # [P, D]
    action: jax.Array  # [P, A]
    reward: jax.Array  # [P] scaled
    failure: jax.Array  # [P] bool, what the failure head learns
    terminated: jax.Array  # [P] bool
    starts: jax.Array  # [S] i32 first steps of all windows
    failing: jax.Array  # [F] i32 first steps of windows with a failure
    num_starts: jax.Array  # [] i32
    num_failing: jax.Array  # [] i32


def failure_within(failure: jax.Array, done: jax.Array, window: int) -> jax.Array:
    """Whether a step or one of the `window` - 1 after it in its episode fails: [T, ...] bool.

    Args:
        failure: C(s, a) in time order, [T, ...] bool. What lies beyond T counts as safe.
        done: [T, ...] bool, the last steps of episodes.
        window: K.
    """
    chex.assert_equal_shape([failure, done])
    now = jnp.arange(len(failure)).reshape(-1, *[1] * (failure.ndim - 1))
    upcoming = lambda event: jax.lax.cummin(jnp.where(event, now, 2**30), reverse=True)
    failing = upcoming(failure)
    return (failing < now + window) & (failing <= upcoming(done))


def foretold(data: Dataset, window: int) -> np.ndarray:
    """`failure_within` of a dataset's episodes, [M] bool."""
    chex.assert_rank([data["failure"], data["episode"]], 1)
    last = np.append(data["episode"][1:] != data["episode"][:-1], True)
    return np.asarray(failure_within(data["failure"], last, window))


def failing_run_index(failure: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """How many failing steps in a row end at each step, 0 where not failing: [M] -> [M] i32."""
    chex.assert_rank(failure, 1)
    chex.assert_equal_shape([failure, episode])
    index = np.zeros(len(failure), np.int32)
    for t in np.flatnonzero(failure):
        carried = index[t - 1] if t > 0 and episode[t - 1] == episode[t] else 0
        index[t] = carried + 1
    return index


def window_starts(data: Dataset, length: int, cap: int) -> np.ndarray:
    """First steps of all windows of `length` steps inside an episode, [S] i32.

    Windows that begin deeper than `cap` inside one run of failing steps are left out: the head
    would otherwise mostly learn "stay failed".
    """
    episode = data["episode"]
    chex.assert_rank(episode, 1)
    first = np.arange(max(0, len(episode) - length + 1))
    whole = episode[first] == episode[first + length - 1]
    shallow = failing_run_index(data["failure"], episode)[first] <= cap
    return first[whole & shallow].astype(np.int32)


def absorbed(data: Dataset, length: int) -> Dataset:
    """`data` with `length` - 1 more failing steps after each episode that a failure has ended.

    Windows lie inside one episode, so a failure that ends it would only ever be seen at their last
    step. The steps added stay where it happened, by the last action and without reward. Data in
    which failures end nothing, or that do not say success, are returned as they are.
    """
    last = np.append(data["episode"][1:] != data["episode"][:-1], True)
    if "success" not in data:
        return data
    ends = last & data["failure"] & data["terminated"] & ~data["success"]
    if not ends.any():
        return data
    rows = np.repeat(np.arange(len(ends)), np.where(ends, length, 1))
    added = np.append(False, rows[1:] == rows[:-1])
    longer = {name: field[rows] for name, field in data.items()}
    stay = added.reshape(-1, 1)
    longer["obs"] = np.where(stay, longer["next_obs"], longer["obs"])
    longer["reward"] = np.where(added, np.float32(0.0), longer["reward"])
    return longer


def prior_shift(data: Dataset, config: WorldModelConfig) -> tuple[np.ndarray, np.ndarray, float]:
    """(window starts, starts of windows with a failure, logit shift).

    Batches hold `failure_share` windows with a failure; with pi_b and pi_d the rates of failing
    steps in batches and in the data, adding log(pi_d (1 - pi_b) / ((1 - pi_d) pi_b)) to a logit
    trained on batches makes it a logit under the data's own rate.
    """
    chex.assert_rank([data["failure"], data["episode"]], 1)
    starts = window_starts(data, config.train_horizon, config.failing_run_cap)
    inside = starts[:, None] + np.arange(config.train_horizon)
    counts = foretold(data, config.failure_window)[inside].sum(axis=1)
    failing = starts[counts > 0]
    if len(failing) == 0:
        return starts, failing, 0.0
    rate = min(counts.mean() / config.train_horizon, 1 - 1e-6)
    rate_failing = counts[counts > 0].mean() / config.train_horizon
    share = config.failure_share
    batch_rate = np.clip(share * rate_failing + (1 - share) * rate, 1e-6, 1 - 1e-6)
    shift = np.log(rate / (1 - rate)) - np.log(batch_rate / (1 - batch_rate))
    return starts, failing, float(shift)


def to_windows(data: Dataset, config: WorldModelConfig) -> tuple[Windows, float]:
    """Put windows on the device (observations already normalised); also the logit shift."""
    data = absorbed(data, config.train_horizon)
    starts, failing, shift = prior_shift(data, config)
    if len(starts) == 0:
        raise DatasetError(
            f"no episode has {config.train_horizon} steps: shorten world_model.train_horizon"
        )
    labelled = data | {"failure": foretold(data, config.failure_window)}
    fields = {
        k: jnp.asarray(pad_to_power_of_two(labelled[k]))
        for k in ("obs", "next_obs", "action", "reward", "failure", "terminated")
    }
    windows = Windows(
        **fields,
        starts=jnp.asarray(pad_to_power_of_two(starts)),
        failing=jnp.asarray(pad_to_power_of_two(failing if len(failing) else starts[:1])),
        num_starts=jnp.asarray(len(starts)),
        num_failing=jnp.asarray(max(1, len(failing))),
    )
    return windows, shift


def sample_windows(
    windows: Windows, key: jax.Array, config: WorldModelConfig, batch: int
) -> dict[str, jax.Array]:
    """`batch` windows, time first: name -> [L, B, ...]; `failure_share` of them with a failure."""
    key_any, key_failing = jax.random.split(key)
    num_failing = round(batch * config.failure_share)
    row = jax.random.randint(key_any, (batch - num_failing,), 0, windows.num_starts)
    failing_row = jax.random.randint(key_failing, (num_failing,), 0, windows.num_failing)
    first = jnp.concatenate([windows.starts[row], windows.failing[failing_row]])
    index = jnp.arange(config.train_horizon)[:, None] + first
    names = ("obs", "next_obs", "action", "reward", "failure", "terminated")
    return {name: getattr(windows, name)[index] for name in names}
