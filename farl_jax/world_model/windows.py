"""Windows of an episode's steps, which the world model learns from, and failures in them."""

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
    failure: jax.Array  # [P] bool
    terminated: jax.Array  # [P] bool
    starts: jax.Array  # [S] i32 first steps of all windows
    failing: jax.Array  # [F] i32 first steps of windows with a failure
    num_starts: jax.Array  # [] i32
    num_failing: jax.Array  # [] i32, may be 0


def failing_run_index(failure: np.ndarray, episode: np.ndarray) -> np.ndarray:
    """How many failing steps in a row end at each step, 0 where not failing: [M] -> [M] i32."""
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
    first = np.arange(max(0, len(episode) - length + 1))
    whole = episode[first] == episode[first + length - 1]
    shallow = failing_run_index(data["failure"], episode)[first] <= cap
    return first[whole & shallow].astype(np.int32)


def importance(failing: jax.Array, rate: jax.Array, share: jax.Array | float) -> jax.Array:
    """True over sampled rate of each window's kind: [B] bool -> [B], 1 on average.

    A batch holds windows drawn uniformly, and a `share` [] drawn from failing ones alone. With
    `rate` [] of failing windows in truth it then holds q = share + (1 - share) rate of them: they
    weigh rate / q, the others (1 - rate) / (1 - q). A loss so weighted has the minimum that it has
    on windows drawn uniformly, whatever the share.
    """
    sampled = share + (1.0 - share) * rate
    weight_failing = rate / jnp.maximum(sampled, 1e-9)
    weight_safe = (1.0 - rate) / jnp.maximum(1.0 - sampled, 1e-9)
    return jnp.where(failing, weight_failing, weight_safe)


def to_windows(data: Dataset, config: WorldModelConfig) -> Windows:
    """Put windows on the device (observations already normalised)."""
    starts = window_starts(data, config.train_horizon, config.failing_run_cap)
    if len(starts) == 0:
        raise DatasetError(
            f"no episode has {config.train_horizon} steps: shorten world_model.train_horizon"
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
    """`batch` windows, time first: name -> [L, B, ...]; `failure_share` of them with a failure.

    `weight` [B] makes them count as often as they happen (`importance`).
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
