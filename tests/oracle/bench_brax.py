"""Seconds of training steps of Brax's own PPO, to set beside ours on the same machine.

Runs in a Python with brax: `farl bench brax PYTHON` starts it with its sizes as JSON. It prints one
JSON line for each training step, and waits for a line of stdin before the next. So several learners
can take turns. The first two steps compile (Brax 0.14.2), and go by without a word. End of stdin
ends it.
"""

import functools
import importlib.metadata
import json
import sys
from typing import Any

ANSWERS, sys.stdout = sys.stdout, sys.stderr  # MuJoCo prints on stdout when it is imported

import brax.envs.base  # noqa: E402 - fails early where the environment is wrong
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from brax.training.agents.ppo import networks  # noqa: E402
from brax.training.agents.ppo import train as ppo  # noqa: E402

COMPILING = 2


class Noise(brax.envs.base.Env):
    """Observations of noise that move on by one place at each step. It has no physics."""

    def __init__(self, observation_size: int, action_size: int) -> None:
        """Take the sizes of another environment."""
        self._sizes = observation_size, action_size

    def reset(self, rng: jax.Array) -> brax.envs.base.State:
        """Draw an observation."""
        obs, zero = jax.random.normal(rng, (self.observation_size,)), jnp.zeros(())
        return brax.envs.base.State(None, obs, zero, zero, {}, {})

    def step(self, state: brax.envs.base.State, action: jax.Array) -> brax.envs.base.State:
        """Move it on; the reward is the first action's square, so that there is one."""
        return state.replace(obs=jnp.roll(state.obs, 1), reward=-jnp.square(action[0]))

    @property
    def observation_size(self) -> int:
        """Numbers of an observation."""
        return self._sizes[0]

    @property
    def action_size(self) -> int:
        """Numbers of an action."""
        return self._sizes[1]

    @property
    def backend(self) -> str:
        """No physics."""
        return "noise"


def train(ask: dict[str, Any]) -> None:
    """Train for `ask["turns"]` steps, after those that compile."""
    steps, turns = ask["num_envs"] * ask["rollout"], ask["turns"] + COMPILING
    about = {name: importlib.metadata.version(name) for name in ("brax", "jax", "jaxlib")}
    about |= {"device": jax.devices()[0].device_kind, "epochs": ask["epochs"]}

    def report(done: int, metrics: dict[str, Any]) -> None:
        if done > COMPILING * steps:
            row = about | {"seconds": steps / float(metrics["training/sps"])}
            print(json.dumps(row), file=ANSWERS, flush=True)
            if not sys.stdin.readline():
                sys.exit(0)

    ppo.train(
        environment=Noise(ask["observation_size"], ask["action_size"]),
        num_timesteps=turns * steps,
        num_evals=turns + 1,  # one training step between two of them
        num_eval_envs=1,
        episode_length=ask["rollout"],
        num_envs=ask["num_envs"],
        unroll_length=ask["rollout"],
        batch_size=ask["num_envs"] // ask["minibatches"],  # in unrolls
        num_minibatches=ask["minibatches"],
        num_updates_per_batch=ask["epochs"],
        learning_rate=1e-4,
        normalize_observations=True,
        network_factory=functools.partial(
            networks.make_ppo_networks,
            policy_hidden_layer_sizes=(ask["width"],) * ask["depth"],
            value_hidden_layer_sizes=(ask["width"],) * ask["critic_depth"],
            activation=jax.nn.relu,
        ),
        progress_fn=report,
        seed=0,
    )


if __name__ == "__main__":
    train(json.loads(sys.argv[1]))
