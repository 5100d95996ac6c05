"""All networks that take observations. The latent world model is in `world_model.latent`."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

GOAL = 3
"""Numbers of the goal. An observation is two equal frames, now and one step ago, then the goal."""


def _scaled_normal(scale: float) -> nn.initializers.Initializer:
    """Truncated normal of variance scale^2 / inputs.

    It is not orthogonal, because a batched QR in a compiled program deadlocks XLA's thread pool on
    two cores (jaxlib 0.10.2: every worker waits in `ParallelBatchMap` for another worker).
    """
    return nn.initializers.variance_scaling(scale**2, "fan_in", "truncated_normal")


class MLP(nn.Module):
    """ReLU network with a linear output."""

    width: int
    depth: int
    outputs: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., inputs] -> [..., outputs]."""
        for _ in range(self.depth):
            x = nn.Dense(self.width, kernel_init=_scaled_normal(math.sqrt(2)))(x)
            x = nn.relu(x)
        return nn.Dense(self.outputs, kernel_init=_scaled_normal(self.output_scale))(x)


class GaussianPolicy(nn.Module):
    """pi(a|s): tanh mean, state-dependent log std in [min_log_std, 0].

    The range is part of the network, so the policy is the same in both phases.
    """

    action_size: int
    width: int
    depth: int
    min_log_std: float
    motion_gain: float = 0.0
    """If not 0, the change between the observation's frames, times this, is a further input."""

    @nn.compact
    def __call__(self, obs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Normalised observations [..., D] -> mean, log_std [..., A]."""
        if self.motion_gain:
            frame = (obs.shape[-1] - GOAL) // 2
            change = obs[..., :frame] - obs[..., frame : 2 * frame]
            obs = jnp.concatenate([obs, self.motion_gain * change], axis=-1)
        mean, raw = jnp.split(
            MLP(self.width, self.depth, 2 * self.action_size, output_scale=0.1)(obs), 2, axis=-1
        )
        log_std = self.min_log_std * 0.5 * (1.0 - jnp.tanh(raw))
        return jnp.tanh(mean), log_std


class Value(nn.Module):
    """V(s), linear output."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, obs: jax.Array) -> jax.Array:
        """[..., D] -> [...]."""
        return MLP(self.width, self.depth, 1)(obs)[..., 0]


class DoubleCritic(nn.Module):
    """Two independent Q(s, a)."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        """[..., D], [..., A] -> [2, ...]."""
        x = jnp.concatenate([obs, action], axis=-1)
        pair = nn.vmap(
            MLP, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=None, axis_size=2
        )
        return pair(self.width, self.depth, 1)(x)[..., 0]


class TransitionModel(nn.Module):
    """One member of the OPE ensemble: predicts the change of the normalised observation."""

    width: int
    depth: int

    @nn.compact
    def __call__(self, obs: jax.Array, action: jax.Array) -> jax.Array:
        """[..., D], [..., A] -> next normalised observation [..., D]."""
        x = jnp.concatenate([obs, action], axis=-1)
        return obs + MLP(self.width, self.depth, obs.shape[-1], output_scale=0.1)(x)
