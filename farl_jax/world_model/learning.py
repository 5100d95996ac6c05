"""Fitting the latent world model on windows of task and failure demonstrations.

    z_0 = h(s_0),  z_{i+1} = d(z_i, a_i)
    L = sum_i   2 rho^i |z_{i+1} - sg h(s_{i+1})|^2 + 0.1 rho'^i CE(R(z_i, a_i), r_i)
             + 0.1 rho'^i CE(Q(z_i, a_i), y_i) + w rho^i BCE(F(z_i, a_i), c_i)
             + 10 |dec(z_i) - s_i|^2 + 0.1 w sum_k BCE(Q^pi_k(h(s_i), a_i), y_i)
    y_i = c_i + (1 - c_i) (1 - terminated_i) gamma_risk mean_k Q^pi_k(h(s_{i+1}), pi(s_{i+1}))

The failure head learns on predicted latents z_i, because the gate's risk evaluates it there. c_i
is C(s_i, a_i). The risk heads Q^pi_k are the risk's tail, for pi the task and the recovery policy.
They learn by temporal differences on encoded latents. Batches hold more windows with a failure than
the data do. The importance weight w of each window undoes that, so that failure and risk heads
predict probabilities. The other losses are not weighted.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import optax
from flax import struct

from farl_jax.config import WorldModelConfig
from farl_jax.nn.training import Learner, polyak
from farl_jax.types import Params
from farl_jax.world_model.latent import LatentModel, two_hot, two_hot_mean
from farl_jax.world_model.windows import Windows, sample_windows


def roll_latents(
    model: LatentModel, params: Params, obs: jax.Array, actions: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Roll out logged actions: obs [B, D], actions [L, B, A] -> z_0.., z_1.., both [L, B, Z]."""
    chex.assert_rank([obs, actions], [2, 3])
    chex.assert_axis_dimension(actions, 1, len(obs))
    start = model.apply(params, obs, method="encode")

    def step(z: jax.Array, action: jax.Array):
        following = model.apply(params, z, action, method="next")
        return following, (z, following)

    _, (before, after) = jax.lax.scan(step, start, actions)
    return before, after


def _cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    return -jnp.sum(target * jax.nn.log_softmax(logits), axis=-1)


def model_loss(
    model: LatentModel, config: WorldModelConfig, params: Params, target: Params, batch: dict
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The weighted loss over windows [L, B, ...] (see the module's docstring) and its parts.

    `batch` also has the windows' `weight` [B] and `next_action` [2, L, B, A], what each of
    `latent.POLICIES` does at `next_obs`. `target` are the target heads.
    """
    chex.assert_equal_shape([batch["reward"], batch["failure"], batch["terminated"]])
    call = lambda p, name, *args: model.apply(p, *args, method=name)
    frozen = jax.lax.stop_gradient(params)
    discounts = lambda rho: (rho ** jnp.arange(config.train_horizon))[:, None]
    z, following = roll_latents(model, params, batch["obs"][0], batch["action"])
    encoded_next = call(frozen, "encode", batch["next_obs"])
    logit = call(params, "failure", z, batch["action"])
    losses = {
        "consistency": discounts(config.rho_consistency)
        * ((following - encoded_next) ** 2).mean(-1),
        "failure": batch["weight"]
        * discounts(config.rho_failure)
        * optax.sigmoid_binary_cross_entropy(logit, batch["failure"].astype(jnp.float32)),
        "decoder": ((call(params, "decode", z) - batch["obs"]) ** 2).mean(-1),
    }
    some = lambda tree: jax.tree.map(lambda x: x[:, :: config.value_stride], tree)
    seen = some({name: batch[name] for name in ("action", "reward", "terminated")})
    args = (params, target, some(z), some(encoded_next), seen)
    losses |= {
        name: discounts(config.rho_reward) * loss
        for name, loss in _value_losses(model, config, *args).items()
    }
    encoded = jnp.concatenate([z[:1], encoded_next[:-1]])  # windows lie in one episode
    losses["risk"] = batch["weight"] * _risk_loss(
        model, config, (params, target), jax.lax.stop_gradient(encoded), encoded_next, batch
    )
    losses["prior"] = _prior_loss(model, config, params, jax.lax.stop_gradient(some(z)))
    means = {name: value.mean() for name, value in losses.items()}
    weights = {"prior": 1.0} | {
        name: getattr(config, f"{name}_weight") for name in means if name != "prior"
    }
    return sum(weights[name] * means[name] for name in means), means


def _value_losses(
    model: LatentModel,
    config: WorldModelConfig,
    params: Params,
    target: Params,
    z: jax.Array,
    encoded_next: jax.Array,
    batch: dict,
) -> dict[str, jax.Array]:
    """Two-hot cross entropies of reward and both values, [L, B] each."""
    call = lambda p, name, *args: model.apply(p, *args, method=name)
    hot = lambda x: two_hot(x, config.bins, config.bin_limit)
    next_action = call(jax.lax.stop_gradient(params), "prior", encoded_next)
    next_q = two_hot_mean(call(target, "q", encoded_next, next_action), config.bin_limit).min(0)
    backup = batch["reward"] + config.discount * jnp.where(batch["terminated"], 0.0, next_q)
    reward_logits = call(params, "reward", z, batch["action"])
    return {
        "reward": _cross_entropy(reward_logits, hot(batch["reward"])),
        "value": _cross_entropy(call(params, "q", z, batch["action"]), hot(backup)).sum(0),
    }


def risk_target(
    failure: jax.Array, terminated: jax.Array, next_risk: jax.Array, gamma_risk: float
) -> jax.Array:
    """c + (1 - c) (1 - terminated) gamma_risk Q', all [...], in [0, 1].

    The factor (1 - c) is explicit because a failure need not end the episode. Only the first one
    counts.
    """
    chex.assert_equal_shape([failure, terminated, next_risk])
    c = failure.astype(jnp.float32)
    return c + (1.0 - c) * jnp.where(terminated, 0.0, gamma_risk * next_risk)


def _risk_loss(
    model: LatentModel,
    config: WorldModelConfig,
    both: tuple[Params, Params],
    encoded: jax.Array,
    encoded_next: jax.Array,
    batch: dict,
) -> jax.Array:
    """Cross entropy of the risk heads against their temporal-difference targets, summed: [L, B].

    `both` are (parameters, target heads). Cross entropy has the same minimum as the squared error,
    but keeps its gradient where a sigmoid saturates.
    """
    params, target = both
    ask = lambda p, z, a: model.apply(p, z, a, method="risk")
    wanted = []
    for policy, action in enumerate(batch["next_action"]):
        following = jax.nn.sigmoid(ask(target, encoded_next, action)[policy]).mean(axis=0)
        wanted.append(
            risk_target(batch["failure"], batch["terminated"], following, config.gamma_risk)
        )
    logits = ask(params, encoded, batch["action"])
    wanted = jnp.broadcast_to(jnp.stack(wanted)[:, None], logits.shape)
    return optax.sigmoid_binary_cross_entropy(logits, wanted).sum((0, 1))


def _prior_loss(
    model: LatentModel, config: WorldModelConfig, params: Params, z: jax.Array
) -> jax.Array:
    """-Q(z, prior(z)) / spread of Q, with gradients to the prior only: z [L, B, Z] -> [L, B]."""
    action = model.apply(params, z, method="prior")
    frozen = jax.lax.stop_gradient(params)
    q = two_hot_mean(model.apply(frozen, z, action, method="q"), config.bin_limit).mean(0)
    spread = jnp.percentile(q, 95) - jnp.percentile(q, 5)
    return -q / jax.lax.stop_gradient(jnp.maximum(spread, 1.0))


TARGETS = ("q_heads", "risk_heads")
"""Components with target networks, those of `LatentModel.q` and `LatentModel.risk`."""


@struct.dataclass
class ModelState:
    """World model, optimiser and target heads during learning."""

    learner: Learner
    target: Params  # Polyak average of the Q and risk heads, for their targets


def model_state(params: Params, config: WorldModelConfig) -> ModelState:
    """A `ModelState` of these parameters with a new optimiser."""
    target = jax.tree.map(jnp.copy, {"params": {k: params["params"][k] for k in TARGETS}})
    return ModelState(Learner.create(params, _optimizer(config)), target)


def _follow(target: Params, params: Params, config: WorldModelConfig) -> Params:
    """The target heads after an update. Both kinds follow at their own rates."""
    rates = {"q_heads": config.target_rate, "risk_heads": config.risk_target_rate}
    own = {k: polyak(target["params"][k], params["params"][k], rates[k]) for k in TARGETS}
    return {"params": own}


def _optimizer(config: WorldModelConfig) -> optax.GradientTransformation:
    """Adam without a step size; each update brings its own."""
    clip = optax.clip_by_global_norm(config.max_grad_norm)
    return optax.chain(clip, optax.scale_by_adam(), optax.scale(-1.0))


Acting = Callable[[jax.Array, jax.Array], jax.Array]
"""(key, normalised observations [..., D]) -> actions [2, ..., A] of `latent.POLICIES`."""


def with_actions(batches: dict[str, jax.Array], acting: Acting, key: jax.Array) -> dict:
    """Batches [K, ...] with `next_action` [K, 2, L, B, A], the policies' actions at `next_obs`."""
    action = jnp.moveaxis(acting(key, batches["next_obs"]), 0, 1)
    return batches | {"next_action": jnp.clip(action, -1.0, 1.0)}


def make_fit(
    model: LatentModel, config: WorldModelConfig
) -> tuple[Callable[[jax.Array], ModelState], Callable[..., tuple[ModelState, dict]]]:
    """Build `init(key) -> state` and `fit(state, batches, rates) -> (state, mean losses)`.

    `batches` are K batches of windows, name -> [K, L, B, ...], and `rates` [K] their step sizes.
    Both phases run this same program.
    """

    optimizer = _optimizer(config)

    def init(key: jax.Array) -> ModelState:
        obs, action = jnp.zeros((1, model.observation_size)), jnp.zeros((1, model.action_size))
        return model_state(model.init(key, obs, action), config)

    def update(state: ModelState, step: tuple[dict[str, jax.Array], jax.Array]):
        batch, rate = step
        (_, losses), gradient = jax.value_and_grad(
            lambda p: model_loss(model, config, p, state.target, batch), has_aux=True
        )(state.learner.params)
        learner = state.learner.apply_gradient(gradient, optimizer, rate)
        target = _follow(state.target, learner.params, config)
        return ModelState(learner, target), losses

    def fit(state: ModelState, batches: dict[str, jax.Array], rates: jax.Array):
        state, losses = jax.lax.scan(update, state, (batches, rates))
        return state, jax.tree.map(jnp.mean, losses)

    return jax.jit(init), jax.jit(fit)


def make_fit_offline(
    model: LatentModel, config: WorldModelConfig, acting: Acting
) -> Callable[[jax.Array, Windows, Callable[[int, dict[str, float]], None]], Params]:
    """Build `run(key, windows, report) -> params`: `steps` updates with a cosine step size.

    `acting` gives the actions whose risk is learnt. `report(updates done, losses)` is called about
    six times.
    """
    init, fit = make_fit(model, config)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps)
    chunks = -(-config.steps // config.chunk)

    @jax.jit
    def batches(key: jax.Array, windows: Windows) -> dict[str, jax.Array]:
        keys = jax.random.split(key, config.chunk)
        drawn = jax.vmap(lambda k: sample_windows(windows, k, config, config.batch))(keys)
        return with_actions(drawn, acting, jax.random.fold_in(key, 1))

    def run(key, windows, report):
        key_init, key_fit = jax.random.split(key)
        state = init(key_init)
        for chunk in range(chunks):
            rates = schedule(chunk * config.chunk + jnp.arange(config.chunk))
            state, losses = fit(state, batches(jax.random.fold_in(key_fit, chunk), windows), rates)
            if (chunk + 1) % max(1, chunks // 6) == 0:
                report((chunk + 1) * config.chunk, {k: float(v) for k, v in losses.items()})
        return state.learner.params

    return run


def predict_failures(
    model: LatentModel,
    params: Params,
    obs: jax.Array,
    actions: jax.Array,
) -> jax.Array:
    """Pr(C = 1) along logged actions: obs [B, D] normalised, actions [L, B, A] -> [L, B]."""
    z, _ = roll_latents(model, params, obs, actions)
    return jax.nn.sigmoid(model.apply(params, z, actions, method="failure"))
