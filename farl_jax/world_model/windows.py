"""Windows: consecutive steps of an episode, which the world model learns from."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from farl_jax.config import WorldModelConfig
from farl_jax.data.dataset import Dataset, DatasetError, pad_to_power_of_two


@struct.dataclass
class Windows:
    """Windows of L consecutive steps of one episode, indexed by their first step."""

    obs: jax.Array  # [P, D] normalised
    next_obs: jax.Array  # [P, D]
    action: jax.Array  # [P, A]
    reward: jax.Array  # [P] scaled
    failure: jax.Array  # [P] bool, label of the failure head
    terminated: jax.Array  # [P] bool
    starts: jax.Array  # [S] i32 first steps of all windows
    failing: jax.Array  # [F] i32 first steps of windows with a failure
    num_starts: jax.Array  # [] i32
    num_failing: jax.Array  # [] i32


def failure_within(failure: jax.Array, done: jax.Array, window: int) -> jax.Array:
    """Whether this step or one of the `window` - 1 next in its episode fails: [T, ...] bool.

    Args:
        failure: C(s, a) in time order, [T, ...] bool. Steps after T count as safe.
        done: [T, ...] bool, the last steps of episodes.
        window: number of steps, 1 for this step only.
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
    """Number of failing steps in a row up to each step, 0 at safe steps: [M] -> [M] i32."""
    chex.assert_rank(failure, 1)
    chex.assert_equal_shape([failure, episode])
    index = np.zeros(len(failure), np.int32)
    for t in np.flatnonzero(failure):
        carried = index[t - 1] if t > 0 and episode[t - 1] == episode[t] else 0
        index[t] = carried + 1
    return index


def window_starts(data: Dataset, length: int, cap: int) -> np.ndarray:
    """First steps of all windows of `length` steps inside one episode, [S] i32.

    Windows that begin after more than `cap` failing steps in a row are left out. Else the failure
    head would mostly learn that failures persist.
    """
    episode = data["episode"]
    chex.assert_rank(episode, 1)
    first = np.arange(max(0, len(episode) - length + 1))
    whole = episode[first] == episode[first + length - 1]
    shallow = failing_run_index(data["failure"], episode)[first] <= cap
    return first[whole & shallow].astype(np.int32)


def absorbed(data: Dataset, length: int) -> Dataset:
    """`data` with `length` - 1 more failing steps after each episode that ended by failure.

    A window lies inside one episode. Without the added steps such a failure would only appear at
    a window's last step. The added steps stay at the final observation, with the last action and
    zero reward. Data without such episodes or without `success` are returned unchanged.
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

        shift = log(pi_d / (1 - pi_d)) - log(pi_b / (1 - pi_b))

    pi_b and pi_d are the rates of failing steps in batches and in the data. They differ because
    batches hold `failure_share` windows with a failure. A logit learnt on batches plus the shift is
    a logit under the data's rate.
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
    """(windows on the device, logit shift) of data with normalised observations."""
    data = absorbed(data, config.train_horizon)
    starts, failing, shift = prior_shift(data, config)
    if len(starts) == 0:
        raise DatasetError(
            f"no episode has {config.train_horizon} steps or more: lower world_model.train_horizon"
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
    """`batch` windows, name -> [L, B, ...]. `failure_share` of them hold a failure."""
    key_any, key_failing = jax.random.split(key)
    num_failing = round(batch * config.failure_share)
    row = jax.random.randint(key_any, (batch - num_failing,), 0, windows.num_starts)
    failing_row = jax.random.randint(key_failing, (num_failing,), 0, windows.num_failing)
    first = jnp.concatenate([windows.starts[row], windows.failing[failing_row]])
    index = jnp.arange(config.train_horizon)[:, None] + first
    names = ("obs", "next_obs", "action", "reward", "failure", "terminated")
    return {name: getattr(windows, name)[index] for name in names}
