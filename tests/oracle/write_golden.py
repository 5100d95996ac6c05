"""Write `tests/data/<task>_golden.npz`: what MetaWorld itself does, for the tests to compare with.

Runs in an environment of its own, since MetaWorld pins an older MuJoCo:

    uv venv --python 3.11 .oracle
    uv pip install --python .oracle metaworld==3.1.1 mujoco==3.3.0 packaging
    .oracle/bin/python tests/oracle/write_golden.py [task ...]

Takes about a minute a task; the same numbers come out every time.
"""

import pathlib
import sys
import types
import warnings
from typing import Any, NamedTuple

import numpy as np
from metaworld.envs.sawyer_push_v3 import SawyerPushEnvV3
from metaworld.envs.sawyer_push_wall_v3 import SawyerPushWallEnvV3
from metaworld.envs.sawyer_soccer_v3 import SawyerSoccerEnvV3
from metaworld.policies.sawyer_push_v3_policy import SawyerPushV3Policy
from metaworld.policies.sawyer_push_wall_v3_policy import SawyerPushWallV3Policy
from metaworld.policies.sawyer_soccer_v3_policy import SawyerSoccerV3Policy
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils

DATA = pathlib.Path(__file__).parents[1] / "data"
MIN_DISTANCE = 0.15  # m between start and goal, in all of these tasks


class Recipe(NamedTuple):
    """How the episodes of one task are made."""

    env: type[SawyerXYZEnv]
    policies: dict[str, type]  # kind -> scripted policy; "random" has none
    start_low: tuple[float, ...]  # [6] m, start of the object and the goal, as MetaWorld draws them
    start_high: tuple[float, ...]
    kinds: dict[str, tuple[int, int]]  # kind -> episodes and longest episode
    obstacle: str | None = None  # body whose contact with the object is recorded


class Shove:
    """A closed hand comes down behind the puck and pushes it straight away from the robot."""

    def get_action(self, obs: np.ndarray) -> np.ndarray:
        hand, puck = obs[:3], obs[4:7]
        behind, ahead = puck + np.array([0.0, -0.07, 0.03]), puck + np.array([0.0, 0.05, 0.03])
        ready = abs(hand[0] - puck[0]) < 0.02 and hand[1] < puck[1] - 0.03
        point = behind if hand[2] - puck[2] > 0.05 else ahead
        point = point if ready else behind + np.array([0.0, 0.0, 0.12])
        return np.append(10.0 * (point - hand), 1.0)


TASKS = {
    "push": Recipe(
        SawyerPushEnvV3,
        {"expert": SawyerPushV3Policy, "noisy": SawyerPushV3Policy},
        (-0.1, 0.6, 0.02, -0.1, 0.8, 0.01),
        (0.1, 0.7, 0.02, 0.1, 0.9, 0.02),
        {"random": (50, 120), "expert": (50, 150), "noisy": (20, 150)},
    ),
    "push_wall": Recipe(
        SawyerPushWallEnvV3,
        # The last two do not know of the wall: the fingers hit it, and the puck.
        {
            "expert": SawyerPushWallV3Policy,
            "noisy": SawyerPushWallV3Policy,
            "straight": SawyerPushV3Policy,
            "shove": Shove,
        },
        (-0.05, 0.6, 0.015, -0.05, 0.85, 0.01),
        (0.05, 0.65, 0.015, 0.05, 0.9, 0.02),
        {
            "random": (30, 120),
            "expert": (50, 200),
            "noisy": (30, 200),
            "straight": (10, 100),
            "shove": (20, 100),
        },
        obstacle="wall",
    ),
    "soccer": Recipe(
        SawyerSoccerEnvV3,
        {"expert": SawyerSoccerV3Policy, "noisy": SawyerSoccerV3Policy},
        (-0.1, 0.6, 0.03, -0.1, 0.8, 0.0),
        (0.1, 0.7, 0.03, 0.1, 0.9, 0.0),
        {"random": (50, 120), "expert": (50, 150), "noisy": (20, 150)},
    ),
}


def make_env(recipe: Recipe) -> SawyerXYZEnv:
    """Return the task with a visible goal and starts that the caller chooses."""
    env = recipe.env()
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)  # cached while the goal was hidden
    env._set_task_called = True
    env._freeze_rand_vec = True
    return env


def draw_start(recipe: Recipe, rng: np.random.Generator) -> np.ndarray:
    """Return the start of the object and the goal, [6] m, by MetaWorld's own rejection."""
    while True:
        start = rng.uniform(recipe.start_low, recipe.start_high)
        if np.linalg.norm(start[:2] - start[3:5]) >= MIN_DISTANCE:
            return start


def touches(env: SawyerXYZEnv, obstacle: str) -> bool:
    """Whether the object and the body `obstacle` are in contact now."""
    body_of, pair = env.model.geom_bodyid, {env.model.body("obj").id, env.model.body(obstacle).id}
    return any(
        {*body_of[contact.geom]} == pair and contact.dist < 0 for contact in env.data.contact
    )


def choose_action(policy: Any, kind: str, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an action that float16 holds exactly, so that the file can be small."""
    if policy is None:
        action = rng.uniform(-1.0, 1.0, 4)
    else:
        action = np.asarray(policy.get_action(obs), np.float64)
        if kind == "noisy":
            action = action + rng.normal(0.0, 0.3, 4)
        action = np.clip(action, -1.0, 1.0)
    return action.astype(np.float16)


def record(
    recipe: Recipe, env: SawyerXYZEnv, kind: str, limit: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Run one episode until its success or `limit`; arrays are padded with NaN or zeros."""
    longest = max(length for _, length in recipe.kinds.values())
    policy = recipe.policies[kind]() if kind in recipe.policies else None
    env._last_rand_vec = draw_start(recipe, rng)
    obs, _ = env.reset()
    row = {
        "first_obs": obs.astype(np.float32),
        "actions": np.zeros((longest, 4), np.float16),
        "rewards": np.full(longest, np.nan, np.float32),
        "pucks": np.full((longest, 3), np.nan, np.float32),
        "length": 0,
        "success": False,
    }
    if recipe.obstacle:
        row["touches"] = np.zeros(longest, bool)
    for t in range(limit):
        action = choose_action(policy, kind, obs, rng)
        obs, reward, _, _, info = env.step(action.astype(np.float64))
        row["actions"][t], row["rewards"][t], row["pucks"][t] = action, reward, obs[4:7]
        row["length"] = t + 1
        row["success"] = bool(info["success"])
        if recipe.obstacle:
            row["touches"][t] = touches(env, recipe.obstacle)
        if row["success"]:
            break
    row["last_obs"] = obs.astype(np.float32)
    return row


def shaping_table(rng: np.random.Generator) -> dict[str, np.ndarray]:
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


TABLES = {"push": shaping_table, "soccer": soccer_reward_table}
"""Known answers kept beside the episodes, by task."""


def write(name: str) -> None:
    """Write the file of task `name`."""
    recipe, rng = TASKS[name], np.random.default_rng(0)
    env = make_env(recipe)
    kinds, rows = [], []
    for kind, (episodes, limit) in recipe.kinds.items():
        for _ in range(episodes):
            rows.append(record(recipe, env, kind, limit, rng))
            kinds.append(kind)
    arrays = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    table = TABLES[name](rng) if name in TABLES else {}
    table = {key: value.astype(np.float32) for key, value in table.items()}
    out = DATA / f"{name}_golden.npz"
    np.savez_compressed(out, kinds=np.array(kinds), **arrays, **table)
    for kind in recipe.kinds:
        mine = [row for row, other in zip(rows, kinds, strict=True) if other == kind]
        successes = sum(row["success"] for row in mine)
        touched = sum(row["touches"].any() for row in mine) if recipe.obstacle else "no"
        print(f"{name} {kind}: {len(mine)} episodes, {successes} successes, {touched} touch")
    print(f"{out}: {out.stat().st_size / 2**10:.0f} KiB")


def main() -> None:
    """Write the files of the tasks named on the command line, or of all."""
    warnings.filterwarnings("ignore", message="Constant.*too high")
    for name in sys.argv[1:] or TASKS:
        write(name)


if __name__ == "__main__":
    main()
