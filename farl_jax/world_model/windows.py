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
    failure: jax.Array  # [P] bool
    terminated: jax.Array  # [P] bool
    starts: jax.Array  # [S] i32 first steps of all windows
    failing: jax.Array  # [F] i32 first steps of windows with a failure
    num_starts: jax.Array  # [] i32
    num_failing: jax.Array  # [] i32, may be 0


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


def importance(failing: jax.Array, rate: jax.Array, share: jax.Array | float) -> jax.Array:
    """Importance weight of each window, true over sampled rate of its kind: [B] bool -> [B].

        w = rate / q  of failing windows,  (1 - rate) / (1 - q)  of others
        q = share + (1 - share) rate

    A batch has a `share` [] drawn from failing windows only. The rest is drawn uniformly. `rate` []
    is the true rate of failing windows, q their rate in batches. The weighted loss has the same
    minimum as the loss on windows drawn uniformly. Weights are 1 on average.
    """
    chex.assert_rank(failing, 1)
    sampled = share + (1.0 - share) * rate
    weight_failing = rate / jnp.maximum(sampled, 1e-9)
    weight_safe = (1.0 - rate) / jnp.maximum(1.0 - sampled, 1e-9)
    return jnp.where(failing, weight_failing, weight_safe)


def to_windows(data: Dataset, config: WorldModelConfig) -> Windows:
    """Put windows on the device, from data with normalised observations."""
    data = absorbed(data, config.train_horizon)
    starts = window_starts(data, config.train_horizon, config.failing_run_cap)
    if len(starts) == 0:
        raise DatasetError(
            f"no episode has {config.train_horizon} steps or more: lower world_model.train_horizon"
        )
    inside = starts[:, None] + np.arange(config.train_horizon)
    failing = starts[data["failure"][inside].any(axis=1)]
    fields = {
        k: jnp.asarray(pad_to_power_of_two(data[k]))
        for k in ("obs", "next_obs", "action", "reward", "failure", "terminated")
    }
    return Windows(
        **fields,
        starts=jnp.asarray(pad_to_power_of_two(starts)),
        failing=jnp.asarray(pad_to_power_of_two(failing)),
        num_starts=jnp.asarray(len(starts)),
        num_failing=jnp.asarray(len(failing)),
    )


def sample_windows(
    windows: Windows, key: jax.Array, config: WorldModelConfig, batch: int
) -> dict[str, jax.Array]:
    """`batch` windows, name -> [L, B, ...]. `failure_share` of them hold a failure.

    `weight` [B] are their importance weights.
    """
    key_any, key_failing = jax.random.split(key)
    num_failing = round(batch * config.failure_share)
    row = jax.random.randint(key_any, (batch,), 0, windows.num_starts)
    failing_row = jax.random.randint(key_failing, (num_failing,), 0, windows.num_failing)
    some = windows.num_failing > 0
    first = windows.starts[row]
    chosen = jnp.where(some, windows.failing[failing_row], first[batch - num_failing :])
    first = jnp.concatenate([first[: batch - num_failing], chosen])
    index = jnp.arange(config.train_horizon)[:, None] + first
    names = ("obs", "next_obs", "action", "reward", "failure", "terminated")
    drawn = {name: getattr(windows, name)[index] for name in names}
    rate, share = windows.num_failing / windows.num_starts, num_failing / batch
    failing = drawn["failure"].any(axis=0)
    return drawn | {"weight": importance(failing, rate, jnp.where(some, share, 0.0))}
