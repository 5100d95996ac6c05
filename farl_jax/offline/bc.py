"""Behaviour cloning of an ensemble of Gaussian policies by maximum likelihood (FARL, Uni-O4).

Members are independent seeds under `vmap`, as the reference's "diversity" term has no gradient.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax

from farl_jax.config import BCConfig
from farl_jax.data.dataset import Dataset, DeviceData, split_by_episode, to_normalized
from farl_jax.nn import distributions
from farl_jax.nn.networks import GaussianPolicy
from farl_jax.nn.training import Learner, scan_updates
from farl_jax.types import Normalizer, Params

ROUND = 50  # updates between two held-out evaluations


def negative_log_likelihood(
    policy: GaussianPolicy, params: Params, obs: jax.Array, action: jax.Array
) -> jax.Array:
    """-log pi(a|s) per row: normalised obs [B, D], action [B, A] -> [B]."""
    chex.assert_rank([obs, action], 2)
    chex.assert_equal_shape_prefix([obs, action], 1)
    return -distributions.log_prob(action, *policy.apply(params, obs))


def make_fit(
    policy: GaussianPolicy, config: BCConfig
) -> Callable[[jax.Array, DeviceData, DeviceData], tuple[Params, jax.Array]]:
    """Build `fit(key, training, held_out) -> (params [E, ...], their held-out NLL [E])`.

    Data fields: obs (normalised) [P, D], action [P, A]. Each member keeps its weights with the best
    held-out likelihood.
    """
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    optimizer = optax.adam(schedule)

    def held_out_nll(params: Params, held_out: DeviceData) -> jax.Array:
        rows = negative_log_likelihood(
            policy, params, held_out.fields["obs"], held_out.fields["action"]
        )
        real = jnp.arange(rows.shape[0]) < held_out.size
        return jnp.sum(jnp.where(real, rows, 0.0)) / held_out.size

    def fit_member(key: jax.Array, training: DeviceData, held_out: DeviceData):
        key_init, key_fit = jax.random.split(key)
        params = policy.init(key_init, training.fields["obs"][:1])

        def update(learner: Learner, key_batch: jax.Array):
            batch = training.sample(key_batch, config.batch)

            def loss(params: Params) -> jax.Array:
                return negative_log_likelihood(policy, params, batch["obs"], batch["action"]).mean()

            value, gradient = jax.value_and_grad(loss)(learner.params)
            return learner.apply_gradient(gradient, optimizer), value

        def one_round(carry, key_round: jax.Array):
            learner, best, best_nll = carry
            learner, _ = scan_updates(update, learner, key_round, ROUND)
            nll = held_out_nll(learner.params, held_out)
            better = nll < best_nll
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), learner.params, best)
            return (learner, best, jnp.minimum(nll, best_nll)), nll

        start = (Learner.create(params, optimizer), params, jnp.inf)
        rounds = max(1, config.steps // ROUND)
        (_, best, best_nll), _ = jax.lax.scan(one_round, start, jax.random.split(key_fit, rounds))
        return best, best_nll

    def fit(key: jax.Array, training: DeviceData, held_out: DeviceData):
        keys = jax.random.split(key, config.members)
        return jax.vmap(fit_member, in_axes=(0, None, None))(keys, training, held_out)

    return jax.jit(fit)


def make_clone(
    policy: GaussianPolicy, config: BCConfig, rows: int = 4096
) -> Callable[[jax.Array, Dataset, Normalizer], tuple[Params, float]]:
    """Build `clone(key, data, normalizer) -> (ensemble [E, ...], its mean held-out NLL)`.

    It clones the intended actions. Datasets of up to `rows` steps share compiled programs.
    """
    fit = make_fit(policy, config)

    def clone(key: jax.Array, data: Dataset, normalizer: Normalizer) -> tuple[Params, float]:
        data = data | {"action": data["intended"]}
        parts = split_by_episode(data, config.holdout, seed=0)
        sizes = rows, int(config.holdout * rows)
        fields = ("obs", "action")
        clones, nll = fit(
            key,
            *(to_normalized(p, normalizer, fields, n) for p, n in zip(parts, sizes, strict=True)),
        )
        return clones, float(nll.mean())

    return clone
