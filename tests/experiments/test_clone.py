"""Clones imitate what a controller intended, not the noise that was executed in its place."""

import jax
import numpy as np

from farl_jax.config import BCConfig
from farl_jax.data.dataset import FIELDS
from farl_jax.offline.bc import make_clone
from farl_jax.types import Normalizer
from tests.farl_jax.online.test_loop import NETS


def test_a_clone_imitates_what_was_intended():
    size = 128
    data = {name: np.zeros(size, kind) for name, kind in FIELDS.items()}
    obs = np.random.default_rng(0).normal(size=(size, 2)).astype(np.float32)
    wanted, done = np.full((size, 1), 0.5, np.float32), np.full((size, 1), -0.5, np.float32)
    data |= {"obs": obs, "next_obs": obs, "action": done, "intended": wanted}
    data["episode"] = np.repeat(np.arange(4, dtype=np.int32), size // 4)
    config = BCConfig(members=2, steps=200, batch=32, learning_rate=1e-2)
    normalizer = Normalizer(np.zeros(2), np.ones(2))
    clones, _ = make_clone(NETS.policy, config)(jax.random.key(0), data, normalizer)
    mean, _ = jax.vmap(lambda params: NETS.policy.apply(params, obs))(clones)
    np.testing.assert_allclose(mean, 0.5, atol=0.1)
