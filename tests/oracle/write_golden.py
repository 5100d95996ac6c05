"""Write `tests/data/push_golden.npz`: what MetaWorld itself does, for the tests to compare with.

Runs in an environment of its own, since MetaWorld pins an older MuJoCo:

    uv venv --python 3.11 .oracle
    uv pip install --python .oracle metaworld==3.1.1 mujoco==3.3.0 packaging
    .oracle/bin/python tests/oracle/write_golden.py

Takes about a minute; the same numbers come out every time.
"""

import pathlib
import types
import warnings

import numpy as np
from metaworld.envs.sawyer_push_v3 import SawyerPushEnvV3
from metaworld.policies.sawyer_push_v3_policy import SawyerPushV3Policy
from metaworld.sawyer_xyz_env import SawyerXYZEnv
from metaworld.utils import reward_utils

OUT = pathlib.Path(__file__).parents[1] / "data" / "push_golden.npz"
KINDS = {"random": (50, 120), "expert": (50, 150), "noisy": (20, 150)}  # episodes, longest


def make_env() -> SawyerPushEnvV3:
    """Return push-v3 with a visible goal and starts that the caller chooses."""
    env = SawyerPushEnvV3()
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)  # cached while the goal was hidden
    env._set_task_called = True
    env._freeze_rand_vec = True
    return env


def draw_start(rng: np.random.Generator) -> np.ndarray:
    """Return puck start and goal, [6] m, by MetaWorld's own rejection."""
    low = np.array([-0.1, 0.6, 0.02, -0.1, 0.8, 0.01])
    high = np.array([0.1, 0.7, 0.02, 0.1, 0.9, 0.02])
    while True:
        start = rng.uniform(low, high)
        if np.linalg.norm(start[:2] - start[3:5]) >= 0.15:
            return start


def choose_action(kind: str, obs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an action that float16 holds exactly, so that the file can be small."""
    if kind == "random":
        action = rng.uniform(-1.0, 1.0, 4)
    else:
        action = np.asarray(SawyerPushV3Policy().get_action(obs), np.float64)
        if kind == "noisy":
            action = action + rng.normal(0.0, 0.3, 4)
        action = np.clip(action, -1.0, 1.0)
    return action.astype(np.float16)


def record(env: SawyerPushEnvV3, kind: str, limit: int, rng: np.random.Generator) -> dict:
    """Run one episode until its success or `limit`; arrays are padded with NaN or zeros."""
    env._last_rand_vec = draw_start(rng)
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
        action = choose_action(kind, obs, rng)
        obs, reward, _, _, info = env.step(action.astype(np.float64))
        row["actions"][t], row["rewards"][t], row["pucks"][t] = action, reward, obs[4:7]
        row["length"] = t + 1
        row["success"] = bool(info["success"])
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


def main() -> None:
    """Write the file."""
    warnings.filterwarnings("ignore", message="Constant.*too high")
    rng = np.random.default_rng(0)
    env = make_env()
    kinds, rows = [], []
    for kind, (episodes, limit) in KINDS.items():
        for _ in range(episodes):
            rows.append(record(env, kind, limit, rng))
            kinds.append(kind)
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    table = {name: value.astype(np.float32) for name, value in shaping_table(rng).items()}
    np.savez_compressed(OUT, kinds=np.array(kinds), **arrays, **table)
    for kind in KINDS:
        mine = [row for row, name in zip(rows, kinds, strict=True) if name == kind]
        successes = sum(row["success"] for row in mine)
        print(f"{kind}: {len(mine)} episodes, {successes} successes")
    print(f"{OUT}: {OUT.stat().st_size / 2**10:.0f} KiB")


if __name__ == "__main__":
    main()
