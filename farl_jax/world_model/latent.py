"""The world model's network: TD-MPC2's components, a decoder, a failure head and risk heads.

encoder h: s -> z;  dynamics d: (z, a) -> z';  reward R(z, a);  values Q_k(z, a);  prior pi(z);
decoder: z -> s;  failure F(z, a) -> logit of Pr(C(s, a) = 1);  risk Q^pi_k(z, a) -> logit of the
discounted probability that the first failure is still to come under pi, task or recovery policy.

With `encoder = "identity"`, the default, z is s itself and d(z, a) = z + a network's output.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from farl_jax.config import WorldModelConfig

POLICIES = ("task", "recovery")
"""The policies whose risk the model learns."""
RISK_START = -4.0
"""Initial logit of a learnt risk, 0.018. A bootstrapped risk falls slowly, because its discount is
near 1. One that starts at 0.5 would stay above eps_safe for thousands of updates."""


def simnorm(x: jax.Array, group: int) -> jax.Array:
    """Softmax within groups of `group` features, [..., Z] -> [..., Z]; bounds the latent."""
    grouped = x.reshape(*x.shape[:-1], -1, group)
    return nn.softmax(grouped, axis=-1).reshape(x.shape)


def symlog(x: jax.Array) -> jax.Array:
    """sign(x) log(1 + |x|)."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def symexp(x: jax.Array) -> jax.Array:
    """Inverse of `symlog`."""
    return jnp.sign(x) * jnp.expm1(jnp.abs(x))


def two_hot(x: jax.Array, bins: int, limit: float) -> jax.Array:
    """symlog(x) as weights on the two nearest of `bins` points: [...] -> [..., bins]."""
    position = (jnp.clip(symlog(x), -limit, limit) + limit) / (2 * limit) * (bins - 1)
    lower = jnp.floor(position)
    upper_weight = (position - lower)[..., None]
    one_hot = lambda index: jax.nn.one_hot(index.astype(jnp.int32), bins)
    above = jnp.minimum(lower + 1, bins - 1)
    return one_hot(lower) * (1 - upper_weight) + one_hot(above) * upper_weight


def two_hot_mean(logits: jax.Array, limit: float) -> jax.Array:
    """Expected value of a two-hot head: logits [..., bins] -> [...]."""
    support = jnp.linspace(-limit, limit, logits.shape[-1])
    return symexp(jnp.sum(jax.nn.softmax(logits) * support, axis=-1))


def mish(x: jax.Array) -> jax.Array:
    """x tanh(log(1 + e^x)), computed by tanh(log(1 + n)) = (n^2 + 2n) / (n^2 + 2n + 2), n = e^x.

    One exponential is three times faster on a CPU than the definition's three functions.
    """
    n = jnp.exp(jnp.minimum(x, 20.0))
    gate = n * (n + 2.0)
    return x * gate / (gate + 2.0)


class NormedMLP(nn.Module):
    """Two hidden layers of Linear, LayerNorm and Mish, then a linear output.

    Initial weights have variance 1 / inputs, not TD-MPC2's fixed 0.02. With the latter the latent
    starts almost constant, and a few thousand updates do not teach it the goal
    (docs/experiments.md, row 15).
    """

    width: int
    outputs: int
    zero_output: bool = False

    @nn.compact
    def __call__(self, *inputs: jax.Array) -> jax.Array:
        """Concatenated inputs [..., *] -> [..., outputs]."""
        x = jnp.concatenate(inputs, axis=-1)
        init = nn.initializers.lecun_uniform()
        for _ in range(2):
            x = mish(nn.LayerNorm()(nn.Dense(self.width, kernel_init=init)(x)))
        last = nn.initializers.zeros if self.zero_output else init
        return nn.Dense(self.outputs, kernel_init=last)(x)


class LatentModel(nn.Module):
    """All components. Call one with `apply(params, ..., method=...)`.

    Observations are normalised and actions lie in [-1, 1]. Leading axes are free.
    """

    config: WorldModelConfig
    observation_size: int
    action_size: int

    def setup(self) -> None:
        """Create the components."""
        c = self.config
        self.identity = c.encoder == "identity"
        latent = self.observation_size if self.identity else c.latent
        self.encoder = NormedMLP(c.width, latent)
        self.dynamics = NormedMLP(c.width, latent, zero_output=self.identity)
        stack = nn.vmap(
            NormedMLP,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            axis_size=2,
        )
        self.reward_head = NormedMLP(c.width, c.bins, zero_output=True)
        self.q_heads = stack(c.width, c.bins, zero_output=True)
        self.prior_head = NormedMLP(c.width, self.action_size)
        self.decoder = NormedMLP(c.width, self.observation_size)
        self.failure_head = NormedMLP(c.width, 1)
        self.risk_heads = stack(c.width, len(POLICIES))

    def encode(self, obs: jax.Array) -> jax.Array:
        """s [..., D] -> z [..., Z]."""
        if self.identity:
            return obs
        return simnorm(self.encoder(obs), self.config.simnorm_group)

    def next(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        """(z, a) -> z' [..., Z]."""
        if self.identity:
            return latent + self.dynamics(latent, action)
        return simnorm(self.dynamics(latent, action), self.config.simnorm_group)

    def decode(self, latent: jax.Array) -> jax.Array:
        """z -> normalised s [..., D]."""
        return latent if self.identity else self.decoder(latent)

    def reward(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        """Two-hot logits of the reward, [..., bins]."""
        return self.reward_head(latent, action)

    def q(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        """Two-hot logits of both values, [2, ..., bins]."""
        return self.q_heads(latent, action)

    def prior(self, latent: jax.Array) -> jax.Array:
        """Action [..., A] of the model's own policy, in [-1, 1]."""
        return jnp.tanh(self.prior_head(latent))

    def failure(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        """Logit of Pr(C(s, a) = 1): [...]."""
        return self.failure_head(latent, action)[..., 0]

    def risk(self, latent: jax.Array, action: jax.Array) -> jax.Array:
        """Logits of the risk heads, two for each of `POLICIES`: [2, 2, ...]."""
        return jnp.moveaxis(self.risk_heads(latent, action), -1, 0) + RISK_START

    def __call__(self, obs: jax.Array, action: jax.Array) -> tuple[jax.Array, ...]:
        """Call every component once, for initialisation."""
        z = self.encode(obs)
        following = self.next(z, action)
        heads = (self.reward(z, action), self.q(z, action), self.failure(z, action))
        return *heads, self.risk(z, action), self.prior(z), self.decode(following)
