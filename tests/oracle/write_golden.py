"""Write `tests/data/<name>_golden.npz`: what MetaWorld itself does, for the tests to compare with.

Runs in an environment of its own, since MetaWorld pins an older MuJoCo:

    uv venv --python 3.11 .oracle
    uv pip install --python .oracle metaworld==3.1.1 mujoco==3.3.0 packaging
    .oracle/bin/python tests/oracle/write_golden.py [push soccer ...]

Takes about a minute each; the same numbers come out every time.
"""

import pathlib
import sys
import types
import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from metaworld.envs.sawyer_push_v3 import SawyerPushEnvV3
from metaworld.envs.sawyer_soccer_v3 import SawyerSoccerEnvV3
from metaworld.policies.policy import Policy
from metaworld.policies.sawyer_push_v3_policy import SawyerPushV3Policy
from metaworld.policies.sawyer_soccer_v3_policy import SawyerSoccerV3Policy
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils

DATA = pathlib.Path(__file__).parents[1] / "data"
KINDS = {"random": (50, 120), "expert": (50, 150), "noisy": (20, 150)}  # episodes, longest


def make_env(env_class: type[SawyerXYZEnv]) -> SawyerXYZEnv:
    """Return MetaWorld's environment with a visible goal and starts that the caller chooses."""
    env = env_class()
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)  # cached while the goal was hidden
    env._set_task_called = True
    env._freeze_rand_vec = True
    return env


def draw_push_start(rng: np.random.Generator) -> np.ndarray:
    """Return puck start and goal, [6] m, by MetaWorld's own rejection."""
    return draw_apart(rng, [-0.1, 0.6, 0.02, -0.1, 0.8, 0.01], [0.1, 0.7, 0.02, 0.1, 0.9, 0.02])


def draw_soccer_start(rng: np.random.Generator) -> np.ndarray:
    """Return ball start and goal, [6] m, by MetaWorld's own rejection."""
    return draw_apart(rng, [-0.1, 0.6, 0.03, -0.1, 0.8, 0.0], [0.1, 0.7, 0.03, 0.1, 0.9, 0.0])


def draw_apart(rng: np.random.Generator, low: list[float], high: list[float]) -> np.ndarray:
    """Return object start and goal, [6] m, uniform but at least 0.15 m apart."""
    while True:
        start = rng.uniform(low, high)
        if np.linalg.norm(start[:2] - start[3:5]) >= 0.15:
            return start


def choose_action(
    kind: str, policy: Policy, obs: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return an action that float16 holds exactly, so that the file can be small."""
    if kind == "random":
        action = rng.uniform(-1.0, 1.0, 4)
    else:
        action = np.asarray(policy.get_action(obs), np.float64)
        if kind == "noisy":
            action = action + rng.normal(0.0, 0.3, 4)
        action = np.clip(action, -1.0, 1.0)
    return action.astype(np.float16)


def record(
    env: SawyerXYZEnv, source: "Source", kind: str, limit: int, rng: np.random.Generator
) -> dict:
    """Run one episode until its success or `limit`; arrays are padded with NaN or zeros."""
    env._last_rand_vec = source.draw_start(rng)
    obs, _ = env.reset()
    row = {
        "first_obs": obs.astype(np.float32),
        "actions": np.zeros((150, 4), np.float16),
        "rewards": np.full(150, np.nan, np.float32),
        "pucks": np.full((150, 3), np.nan, np.float32),
        "length": 0,
        "success": False,
    }
    for t in range(limit):
        action = choose_action(kind, source.policy, obs, rng)
        obs, reward, _, _, info = env.step(action.astype(np.float64))
        row["actions"][t], row["rewards"][t], row["pucks"][t] = action, reward, obs[4:7]
        row["length"] = t + 1
        row["success"] = bool(info["success"])
        if row["success"]:
            break
    row["last_obs"] = obs.astype(np.float32)
    return row


def push_shaping_table(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Evaluate MetaWorld's shaping functions at random arguments."""
    x = rng.uniform(0.0, 0.5, 60)
    low, margin = rng.uniform(0.0, 0.1, 60), rng.uniform(0.0, 0.4, 60)
    margin[:5] = 0.0
    high = low + rng.uniform(0.0, 0.1, 60)
    rows = zip(x, low, high, margin, strict=True)
    tolerance = [
        reward_utils.tolerance(a, bounds=(b, c), margin=d, sigmoid="long_tail")
        for a, b, c, d in rows
    ]
    pairs = rng.uniform(0.0, 1.0, (60, 2))
    pairs[:3] = [[0.0, 0.0], [0.0, 0.7], [1.0, 1.0]]
    product = [reward_utils.hamacher_product(a, b) for a, b in pairs]
    scenes, caging = [], []
    for index in range(80):
        start = np.array([*rng.uniform([-0.1, 0.6], [0.1, 0.7]), 0.02])
        puck = start if index % 2 else start + np.array([*rng.uniform(-0.1, 0.1, 2), 0.0])
        tcp = puck + rng.normal(0.0, 0.003 if index % 4 < 2 else 0.05, 3)
        reach = np.array([0.0, rng.uniform(0.016, 0.05), 0.0])
        pads = np.stack([tcp + reach, tcp - reach])
        tcp_start, effort = np.array([0.0, 0.6, 0.15]), rng.uniform(-1.0, 1.0)
        hand = types.SimpleNamespace(
            obj_init_pos=start,
            init_tcp=tcp_start,
            tcp_center=tcp,
            get_body_com={"leftpad": pads[0], "rightpad": pads[1]}.__getitem__,
        )
        caging.append(
            SawyerXYZEnv._gripper_caging_reward(
                hand,
                np.array([0.0, 0.0, 0.0, effort]),
                puck,
                object_reach_radius=0.01,
                obj_radius=0.015,
                pad_success_thresh=0.05,
                xz_thresh=0.005,
                high_density=True,
            )
        )
        scenes.append(np.concatenate([[effort], pads[:, 1], tcp, puck, start, tcp_start]))
    return {
        "tolerance_args": np.stack([x, low, high, margin], axis=1),
        "tolerance": np.array(tolerance),
        "hamacher_args": pairs,
        "hamacher": np.array(product),
        "caging_args": np.array(scenes),
        "caging": np.array(caging),
    }


def soccer_reward_table(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Evaluate soccer-v3's reward in random scenes.

    Arguments, in order: effort, pads' y (left, right), then tcp, ball, ball's start, goal and
    tcp's start, three numbers each.
    """
    rows, rewards = [], []
    for index in range(120):
        start = np.array([*rng.uniform([-0.1, 0.6], [0.1, 0.7]), 0.03])
        goal = np.array([*rng.uniform([-0.1, 0.8], [0.1, 0.9]), 0.0])
        near = goal if index % 3 == 0 else start
        ball = np.array([*(near[:2] + rng.uniform(-0.15, 0.15, 2)), 0.026])
        tcp = ball + rng.normal(0.0, 0.002 if index % 4 < 2 else 0.05, 3)
        reach = np.array([0.0, rng.uniform(0.014, 0.05), 0.0])
        pads = np.stack([tcp + reach, tcp - reach])
        tcp_start, effort = np.array([0.0, 0.6, 0.15]), rng.uniform(-1.0, 1.0)
        env = types.SimpleNamespace(
            reward_function_version="v2",
            TARGET_RADIUS=SawyerSoccerEnvV3.TARGET_RADIUS,
            OBJ_RADIUS=SawyerSoccerEnvV3.OBJ_RADIUS,
            obj_init_pos=start,
            _target_pos=goal,
            init_tcp=tcp_start,
            tcp_center=tcp,
            init_left_pad=pads[0],  # MetaWorld keeps views, so "init" pads are where pads are now
            init_right_pad=pads[1],
            get_body_com={"leftpad": pads[0], "rightpad": pads[1]}.__getitem__,
        )
        env._gripper_caging_reward = types.MethodType(SawyerSoccerEnvV3._gripper_caging_reward, env)
        obs = np.concatenate([np.zeros(4), ball])
        action = np.array([0.0, 0.0, 0.0, effort])
        rewards.append(SawyerSoccerEnvV3.compute_reward(env, action, obs)[0])
        rows.append(np.concatenate([[effort], pads[:, 1], tcp, ball, start, goal, tcp_start]))
    return {"reward_args": np.array(rows), "reward": np.array(rewards)}


class Source(NamedTuple):
    """Where one golden file comes from."""

    env_class: type[SawyerXYZEnv]
    policy: Policy
    draw_start: Callable[[np.random.Generator], np.ndarray]
    table: Callable[[np.random.Generator], dict[str, np.ndarray]]  # known answers beside episodes


SOURCES = {
    "push": Source(SawyerPushEnvV3, SawyerPushV3Policy(), draw_push_start, push_shaping_table),
    "soccer": Source(
        SawyerSoccerEnvV3, SawyerSoccerV3Policy(), draw_soccer_start, soccer_reward_table
    ),
}


def write(name: str) -> None:
    """Write the golden file of `SOURCES[name]`."""
    source, rng = SOURCES[name], np.random.default_rng(0)
    env = make_env(source.env_class)
    kinds, rows = [], []
    for kind, (episodes, limit) in KINDS.items():
        for _ in range(episodes):
            rows.append(record(env, source, kind, limit, rng))
            kinds.append(kind)
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    table = {key: value.astype(np.float32) for key, value in source.table(rng).items()}
    path = DATA / f"{name}_golden.npz"
    np.savez_compressed(path, kinds=np.array(kinds), **arrays, **table)
    for kind in KINDS:
        mine = [row for row, its_kind in zip(rows, kinds, strict=True) if its_kind == kind]
        successes = sum(row["success"] for row in mine)
        print(f"{kind}: {len(mine)} episodes, {successes} successes")
    print(f"{path}: {path.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="Constant.*too high")
    for name in sys.argv[1:] or SOURCES:
        write(name)
