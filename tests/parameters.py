"""Network parameters from NumPy, for tests that need just any: no initialiser to compile."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np


def random_parameters(net: nn.Module, *inputs: Any, seed: int = 0) -> Any:
    """Parameters for these inputs, each leaf N(0, 1 / fan-in), biases and the like N(0, 0.01)."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        kernel = "kernel" in jax.tree_util.keystr(path)
        scale = leaf.shape[-2] ** -0.5 if kernel else 0.1
        return rng.normal(0, scale, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)
