"""Small shared pieces of gradient training: optimisers and the scan over updates."""

from collections.abc import Callable
from typing import Any, NamedTuple

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
        """Fresh optimiser state for these parameters."""
        return cls(params=params, opt_state=optimizer.init(params))

    def apply_gradient(
        self,
        gradient: Any,
        optimizer: optax.GradientTransformation,
        rate: jax.Array | float = 1.0,
    ) -> "Learner":
        """One optimiser step; `rate` [] scales it where the optimiser itself has no step size."""
        updates, opt_state = optimizer.update(gradient, self.opt_state, self.params)
        updates = jax.tree.map(lambda u: rate * u, updates)
        return Learner(optax.apply_updates(self.params, updates), opt_state)


class OnlineLearning(NamedTuple):
    """How a prediction that the gate asks goes on learning in the online phase: pure functions.

    Its state has `learnt`: the entries of an `Agent` that it has changed.
    """

    init: Callable[..., Any]
    """(parameters after the offline phase) -> state."""
    observe: Callable[..., Any]
    """(state, normalizer, steps [T, N], key) -> state, which remembers some of the steps."""
    learn: Callable[..., Any]
    """(state, key, demonstrations, (task policy, recovery policy)) -> state, after one chunk of
    gradient steps."""
    part: str
    """The entry of an `Agent` whose parameters `init` takes."""


def scan_updates(
    update: Callable[[Any, jax.Array], tuple[Any, Any]], state: Any, key: jax.Array, steps: int
) -> tuple[Any, Any]:
    """Run `update(state, key) -> (state, metrics)` `steps` times; metrics are averaged."""
    state, metrics = jax.lax.scan(update, state, jax.random.split(key, steps))
    return state, jax.tree.map(jnp.mean, metrics)


@jax.jit
def finite(tree: Any) -> jax.Array:
    """Whether all numbers of all leaves are finite: [] bool."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def polyak(target: Params, online: Params, rate: float) -> Params:
    """rate * online + (1 - rate) * target, leaf by leaf."""
    return optax.incremental_update(online, target, rate)
