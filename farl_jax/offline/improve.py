"""Uni-O4's offline policy improvement: PPO on data, accepted by off-policy evaluation."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from farl_jax.config import OfflinePPOConfig
from farl_jax.data.dataset import DeviceData
from farl_jax.nn import distributions
from farl_jax.nn.networks import DoubleCritic, GaussianPolicy, TransitionModel, Value
from farl_jax.nn.training import Learner, scan_updates
from farl_jax.offline import ope
from farl_jax.offline.iql import Critics, advantage
from farl_jax.types import Params
from farl_jax.updates.ppo import clipped_surrogate


def make_improve_offline(
    nets: tuple[GaussianPolicy, Value, DoubleCritic, TransitionModel], config: OfflinePPOConfig
) -> Callable[[jax.Array, Params, Critics, Params, DeviceData], tuple[Params, dict]]:
    """Build Uni-O4's offline improvement of a policy ensemble.

    `improve(key, members [E, ...], critics, ensemble, data) -> (best member, metrics)`. States are
    from the data, actions from the frozen pi_k, and advantages min Q - V are normalised per batch.
    A round's candidate replaces pi_k if OPE finds it better. Else the next round starts from pi_k.
    The result is the accepted policy with the highest OPE score.
    """
    policy, value_net, critic_net, _ = nets
    optimizer = optax.chain(optax.clip_by_global_norm(0.5), optax.adam(config.learning_rate))

    def update(learner: Learner, key: jax.Array, old: Params, critics: Critics, data: DeviceData):
        key_batch, key_action = jax.random.split(key)
        obs = data.sample(key_batch, config.batch)["obs"]
        old_mean, old_log_std = policy.apply(old, obs)
        action = distributions.sample(key_action, old_mean, old_log_std)
        gain = advantage(value_net, critic_net, critics, obs, jnp.clip(action, -1.0, 1.0))
        gain = (gain - gain.mean()) / (gain.std() + 1e-8)
        old_log_prob = distributions.log_prob(action, old_mean, old_log_std)

        def loss(params: Params) -> jax.Array:
            log_prob = distributions.log_prob(action, *policy.apply(params, obs))
            return -clipped_surrogate(log_prob - old_log_prob, gain, config.clip).mean()

        value, gradient = jax.value_and_grad(loss)(learner.params)
        return learner.apply_gradient(gradient, optimizer), value

    def improve_member(key, params, critics, ensemble, data, start):
        score = _make_score(nets, critics, ensemble, start, config.rollout_length)

        def one_round(carry, key_round: jax.Array):
            old, old_score = carry
            step = lambda learner, key: update(learner, key, old, critics, data)
            fresh = Learner.create(old, optimizer)
            learner, _ = scan_updates(step, fresh, key_round, config.steps_per_round)
            candidate_score = score(learner.params)
            accept = ope.is_better(candidate_score, old_score)
            keep = lambda new, kept: jnp.where(accept, new, kept)
            kept = jax.tree.map(keep, (learner.params, candidate_score), (old, old_score))
            return kept, accept

        keys, incumbent = jax.random.split(key, config.rounds), (params, score(params))
        (params, final), accepted = jax.lax.scan(one_round, incumbent, keys)
        return params, final.mean(), accepted.sum()

    def improve(key, members, critics, ensemble, data):
        key_start, key_fit = jax.random.split(key)
        start = data.sample(key_start, config.start_states)["obs"]
        keys = jax.random.split(key_fit, jax.tree.leaves(members)[0].shape[0])
        improve_all = jax.vmap(improve_member, in_axes=(0, 0, None, None, None, None))
        params, scores, accepted = improve_all(keys, members, critics, ensemble, data, start)
        best = jnp.nanargmax(scores)
        chosen = jax.tree.map(lambda leaf: leaf[best], params)
        return chosen, {"score": scores[best], "accepted": accepted[best], "member": best}

    return jax.jit(improve)


def _make_score(
    nets: tuple[GaussianPolicy, Value, DoubleCritic, TransitionModel],
    critics: Critics,
    ensemble: Params,
    start: jax.Array,
    length: int,
) -> Callable[[Params], jax.Array]:
    """Off-policy evaluation of a policy's mean from fixed starts [B, D]: params -> scores [B]."""
    policy, _, critic_net, model = nets
    q_of = lambda obs, action: critic_net.apply(critics.critic, obs, action).min(axis=0)

    def score(params: Params) -> jax.Array:
        action_of = lambda obs: policy.apply(params, obs)[0]
        return ope.evaluate_policy(model, ensemble, action_of, q_of, start, length)

    return score
