"""The networks of a run, and the parameters that both phases learn."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from farl_jax.config import FarlConfig
from farl_jax.nn import distributions
from farl_jax.nn.networks import DoubleCritic, GaussianPolicy, TransitionModel, Value
from farl_jax.types import Normalizer, Params
from farl_jax.world_model.latent import LatentModel


@struct.dataclass
class Agent:
    """All learnt parameters, after the offline phase or during the online phase."""

    policy: Params  # task policy
    value: Params  # IQL V, becomes the online critic
    recovery: Params  # recovery policy
    world_model: Params
    normalizer: Normalizer
    max_risk: jax.Array  # [] eps_safe as calibrated on held-out episodes
    risk_critic: Params | None = None  # Recovery RL's critic, for methods that gate by it


@dataclass(frozen=True)
class Networks:
    """All networks of one run. They hold sizes, not parameters."""

    policy: GaussianPolicy
    recovery: GaussianPolicy
    value: Value
    critic: DoubleCritic
    transition: TransitionModel
    latent: LatentModel
    sizes: tuple[int, int]  # (observation size, action size)

    @classmethod
    def create(cls, config: FarlConfig, observation_size: int, action_size: int) -> "Networks":
        """Create networks of the configured sizes."""
        net = config.network
        shape = action_size, net.width, net.depth, float(np.log(net.min_std))
        return cls(
            policy=GaussianPolicy(*shape),
            recovery=GaussianPolicy(*shape, net.recovery_motion),
            value=Value(net.width, net.critic_depth),
            critic=DoubleCritic(net.width, net.critic_depth),
            transition=TransitionModel(net.width, net.critic_depth),
            latent=LatentModel(config.world_model, observation_size, action_size),
            sizes=(observation_size, action_size),
        )

    def acting(self, task: Params, recovery: Params) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """Build (key, normalised observations [..., D]) -> actions of both policies [2, ..., A].

        They act as in training: the task policy explores, the recovery policy takes its mean.
        """

        def act(key: jax.Array, obs: jax.Array) -> jax.Array:
            wanted = distributions.sample(key, *self.policy.apply(task, obs))
            return jnp.stack([wanted, self.recovery.apply(recovery, obs)[0]])

        return act

    def abstract_agent(self) -> Agent:
        """Shapes and dtypes of an Agent, for a strict restore."""

        def build() -> Agent:
            key, obs, action = jax.random.key(0), jnp.zeros((1, self.sizes[0])), self.sizes[1]
            return Agent(
                policy=self.policy.init(key, obs),
                value=self.value.init(key, obs),
                recovery=self.recovery.init(key, obs),
                world_model=self.latent.init(key, obs, jnp.zeros((1, action))),
                normalizer=Normalizer(obs[0], obs[0], jnp.zeros(())),
                max_risk=jnp.zeros(()),
            )

        return jax.eval_shape(build)

    def abstract_risk_critic(self) -> Params:
        """Shapes and dtypes of a risk critic's parameters."""
        obs, action = (jnp.zeros((1, size)) for size in self.sizes)
        return jax.eval_shape(self.critic.init, jax.random.key(0), obs, action)
