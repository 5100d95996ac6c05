"""Margins at which a recovery demonstration begins and ends."""

from dataclasses import replace
from typing import Any, TypeVar

import chex
import jax
import numpy as np

from farl_jax.config import DemosConfig

Margin = TypeVar("Margin", jax.Array, np.ndarray)


def foreseen_margin(margin: Margin, before: Margin, lead: float) -> Margin:
    """The margin in `lead` steps at its present rate of shrinking, m.

    Args:
        margin, before: m, now and one step ago, [...]. A growing margin counts as constant.
        lead: steps. A rolling object cannot be stopped at once, so it is in danger earlier.
    """
    chex.assert_equal_shape([margin, before])
    return margin - lead * (before - margin).clip(0.0)


def resolve_margins(config: DemosConfig, env: Any) -> DemosConfig:
    """`config` with `env`'s values of the three margin settings that are None."""
    names = ("danger_margin", "danger_lead", "safe_margin")
    chosen = {name: getattr(config, name) for name in names}
    return replace(
        config, **{k: getattr(env, k) if value is None else value for k, value in chosen.items()}
    )
