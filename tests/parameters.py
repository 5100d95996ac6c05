"""Network parameters from NumPy, for tests that need just any: no initialiser to compile."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np

from farl_jax.agent import Agent, Networks
from farl_jax.types import Normalizer


def random_parameters(net: nn.Module, *inputs: Any, seed: int = 0) -> Any:
    """Parameters for these inputs, each leaf N(0, 1 / fan-in), biases and the like N(0, 0.01)."""
    return _draw(jax.eval_shape(net.init, jax.random.key(0), *inputs), seed)


def random_agent(nets: Networks, seed: int = 0) -> Agent:
    """All that a run would have learnt, drawn as above; its normaliser changes nothing."""
    shapes = nets.abstract_agent().replace(risk_critic=nets.abstract_risk_critic())
    size = nets.sizes[0]
    same = Normalizer(np.zeros(size, np.float32), np.ones(size, np.float32))
    return _draw(shapes, seed).replace(normalizer=same)


def _draw(shapes: Any, seed: int) -> Any:
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        kernel = "kernel" in jax.tree_util.keystr(path)
        scale = leaf.shape[-2] ** -0.5 if kernel else 0.1
        return np.asarray(rng.normal(0, scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
