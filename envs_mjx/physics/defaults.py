"""What a device runs by default: one table. `farl bench gpu` measures what belongs in it."""

from typing import NamedTuple


class Defaults(NamedTuple):
    """Defaults of a device."""

    backend: str
    """Physics."""
    num_envs: int | None
    """Environments that reach 90 % of the device's best env steps/s. None: not measured yet."""


DEFAULTS = {
    "cpu": Defaults("native", None),
    "gpu": Defaults("mjx", None),
    "tpu": Defaults("mjx", None),
}
"""JAX's name of the platform -> its defaults."""
OTHER = Defaults("mjx", None)


def defaults_of(platform: str) -> Defaults:
    """Return the defaults of a platform as JAX names it."""
    return DEFAULTS.get(platform, OTHER)
