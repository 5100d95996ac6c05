"""Steps per second of MetaWorld's own push-v3, to set beside `farl bench` on the same machine.

Runs in the oracle environment (see write_golden.py): python tests/oracle/bench_metaworld.py
With --json it prints one line for `farl bench --metaworld`.
"""

import json
import multiprocessing
import sys
import time

import metaworld  # noqa: F401 - registers nothing, but fails early where the environment is wrong
import numpy as np
from metaworld.envs.sawyer_push_v3 import SawyerPushEnvV3

STEPS = 1500


def measure(seed: int) -> float:
    """Env steps per second of one process, random actions, resets left out."""
    env = SawyerPushEnvV3()
    env._partially_observable, env._freeze_rand_vec, env._set_task_called = False, False, True
    env.max_path_length = STEPS + 1
    env.reset()
    rng = np.random.default_rng(seed)
    actions = rng.uniform(-1, 1, (STEPS, 4)).astype(np.float32)
    started = time.perf_counter()
    for action in actions:
        env.step(action)
    return STEPS / (time.perf_counter() - started)


if __name__ == "__main__":
    rates = {1: measure(0)}
    with multiprocessing.Pool(2) as pool:
        rates[2] = sum(pool.map(measure, range(2)))
    if "--json" in sys.argv:
        print(json.dumps(rates))
    else:
        for processes, rate in rates.items():
            print(f"metaworld, {processes} process(es): {rate:,.0f} env steps/s")
