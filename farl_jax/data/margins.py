"""When a recovery demonstration begins and ends: distances to failure, and how fast they shrink."""

from dataclasses import replace
from typing import Any, TypeVar

import chex
import jax
import numpy as np

from farl_jax.config import DemosConfig

Margin = TypeVar("Margin", jax.Array, np.ndarray)


def foreseen_margin(margin: Margin, before: Margin, lead: float) -> Margin:
    """The margin in `lead` steps if it goes on shrinking as now, m; as it is if it does not shrink.

    Args:
        margin, before: m, now and one step ago, [...].
        lead: steps. What rolls or was shoved cannot be stopped at once: it is in danger earlier.
    """
    chex.assert_equal_shape([margin, before])
    return margin - lead * (before - margin).clip(0.0)


def resolve_margins(config: DemosConfig, env: Any) -> DemosConfig:
    """`config` with all three as numbers: where it has None, those of `env`."""
    names = ("danger_margin", "danger_lead", "safe_margin")
    chosen = {name: getattr(config, name) for name in names}
    return replace(
        config, **{k: getattr(env, k) if value is None else value for k, value in chosen.items()}
    )
