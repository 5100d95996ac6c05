"""Gradient training: parameters with their optimiser, and the scan over updates."""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from farl_jax.types import Params


@struct.dataclass
class Learner:
    """Parameters with their optimiser's state."""

    params: Params
    opt_state: optax.OptState

    @classmethod
    def create(cls, params: Params, optimizer: optax.GradientTransformation) -> "Learner":
        """Create the optimiser state of these parameters."""
        return cls(params=params, opt_state=optimizer.init(params))

    def apply_gradient(
        self,
        gradient: Any,
        optimizer: optax.GradientTransformation,
        rate: jax.Array | float = 1.0,
    ) -> "Learner":
        """Do one optimiser step. `rate` [] scales it if the optimiser has no step size."""
        chex.assert_trees_all_equal_shapes(gradient, self.params)
        updates, opt_state = optimizer.update(gradient, self.opt_state, self.params)
        updates = jax.tree.map(lambda u: rate * u, updates)
        return Learner(optax.apply_updates(self.params, updates), opt_state)


class OnlineLearning(NamedTuple):
    """Online learning of the gate's model, as pure functions.

    Its state has `learnt`: the entries of an `Agent` that it changes.
    """

    init: Callable[..., Any]
    """(parameters after the offline phase) -> state."""
    observe: Callable[..., Any]
    """(state, normalizer, steps [T, N], key) -> state, which stores some of the steps."""
    learn: Callable[..., Any]
    """(state, key, demonstrations, (task policy, recovery policy)) -> state, after one chunk of
    gradient steps."""
    part: str
    """The entry of an `Agent` whose parameters `init` takes."""


def scan_updates(
    update: Callable[[Any, jax.Array], tuple[Any, Any]], state: Any, key: jax.Array, steps: int
) -> tuple[Any, Any]:
    """Run `update(state, key) -> (state, metrics)` `steps` times, and average the metrics."""
    state, metrics = jax.lax.scan(update, state, jax.random.split(key, steps))
    return state, jax.tree.map(jnp.mean, metrics)


@jax.jit
def finite(tree: Any) -> jax.Array:
    """Whether all numbers of all leaves are finite: [] bool."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def polyak(target: Params, online: Params, rate: float) -> Params:
    """rate * online + (1 - rate) * target, leaf by leaf."""
    chex.assert_trees_all_equal_shapes(target, online)
    return optax.incremental_update(online, target, rate)
