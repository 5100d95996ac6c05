"""A robot's control loop with an exported policy, here on a simulated robot.

python examples/robot_loop.py policy/ --seconds 10

The simulated robot is a separate process with its own clock. Replace `SimulatedRobot` by your
robot's driver. The loop keeps the contract's rate. It stops the robot if an observation is late or
not finite, after too many missed deadlines in a row, on Ctrl-C, and at its end. The robot also
stops if it receives nothing. --break-after simulates a broken sensor.
"""

import argparse
import multiprocessing
import signal
import sys
import time
from multiprocessing.connection import Connection

import numpy as np

from farl_jax.deploy import DeployError, SafePolicy, load

STALE = 0.5  # s; the loop stops at an older observation
WATCHDOG = 0.5  # s; without an action for so long, the robot holds still
MAX_LATE = 20  # deadlines missed in a row


class EmergencyStop(Exception):
    """The reason why the robot must stop."""


class SimulatedRobot:
    """A driver: `read` the last measurement, `send` an action, `stop`."""

    def __init__(self, task: str, rate: float, break_after: float | None) -> None:
        """Start the robot's process and wait until it is ready."""
        spawn = multiprocessing.get_context("spawn")
        self.link, other = spawn.Pipe()
        asked = (other, task, rate, break_after)
        self.process = spawn.Process(target=simulate, args=asked, daemon=True)
        self.process.start()
        self.latest = self.link.recv()  # ready: its first observation

    def read(self) -> tuple[float, int, np.ndarray]:
        """Return (time, step of the episode, observation) of the last measurement."""
        while self.link.poll():
            self.latest = self.link.recv()
        return self.latest

    def send(self, action: np.ndarray) -> None:
        """Execute this action from now on."""
        self.link.send(action)

    def stop(self) -> None:
        """Hold still for good."""
        if self.process.is_alive():
            self.link.send(None)
            self.process.join(5.0)


def simulate(link: Connection, task: str, rate: float, break_after: float | None) -> None:
    """The robot's process: step the simulator in real time by the last action."""
    import jax

    from envs_mjx import BatchEnv, make

    env = BatchEnv(make(task), 1)
    key, still = jax.random.key(0), np.zeros(env.action_size, np.float32)
    move = lambda state, action, i: env.step(state, action[None], jax.random.fold_in(key, i))[0]
    move = jax.jit(move, compiler_options=dict(env.compiler_options))
    state = move(jax.jit(env.reset)(key), still, np.int32(0))  # compiled before the clock runs
    link.send((time.monotonic(), 0, np.array(state.obs[0])))
    began = tick = heard = time.monotonic()
    action, number = still, np.int32(0)
    while True:
        while link.poll():
            action = link.recv()
            heard = time.monotonic()
            if action is None:
                return
        if time.monotonic() - heard > WATCHDOG:
            action = still
        number += 1
        state = move(state, action, number)
        obs = np.array(state.obs[0])
        if break_after is not None and time.monotonic() - began > break_after:
            obs[4] = np.nan  # the camera has lost the object
        link.send((time.monotonic(), int(state.step_count[0]), obs))
        tick = max(tick + 1.0 / rate, time.monotonic())
        time.sleep(max(0.0, tick - time.monotonic()))


def control(policy: SafePolicy, robot: SimulatedRobot, rate: float, seconds: float) -> str:
    """Act at `rate` for so many seconds; return a summary.

    Raises:
        EmergencyStop: the robot must stop now.
    """
    memory, episode_step = policy.start(), 0
    decisions = recoveries = late = late_in_a_row = 0
    began = tick = time.monotonic()
    while tick - began < seconds:
        time.sleep(max(0.0, tick - time.monotonic()))
        measured, step, obs = robot.read()
        if time.monotonic() - measured > STALE:
            raise EmergencyStop(f"the last observation is older than {STALE} s")
        if step < episode_step:
            memory = policy.start()  # a new episode
        episode_step = step
        try:
            action, memory, info = policy.act(obs, memory)
        except DeployError as error:
            raise EmergencyStop(str(error)) from error
        robot.send(action)
        decisions, recoveries = decisions + 1, recoveries + info["intervened"]
        tick += 1.0 / rate
        if (now := time.monotonic()) > tick:  # too late: skip the next deadline
            late, late_in_a_row, tick = late + 1, late_in_a_row + 1, now
        else:
            late_in_a_row = 0
        if late_in_a_row > MAX_LATE:
            raise EmergencyStop(f"{late_in_a_row} deadlines in a row were missed at {rate:g} Hz")
    passed = time.monotonic() - began
    return (
        f"{decisions} decisions in {passed:.1f} s ({decisions / passed:.1f} Hz of {rate:g}), "
        f"{late} late, recovery acted in {recoveries}"
    )


def interrupted(*_: object) -> None:
    """Stop on Ctrl-C and SIGTERM."""
    raise EmergencyStop("the operator stopped it")


def main(words: list[str] | None = None) -> int:
    """Return 0 after the requested time, 1 after an emergency stop, 2 without a policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", help="folder that farl export wrote")
    parser.add_argument("--runtime", default="jax", choices=("jax", "onnx"))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="Hz; default: the contract's")
    parser.add_argument("--break-after", type=float, help="seconds until a sensor breaks")
    args = parser.parse_args(words)
    try:
        policy = load(args.policy, args.runtime)
    except DeployError as error:
        print(error, file=sys.stderr)
        return 2
    rate = args.rate or policy.contract["rate_hz"]
    if rate is None:
        print(f"{args.policy}: its contract has no rate; give --rate", file=sys.stderr)
        return 2
    robot = SimulatedRobot(policy.contract["task"], rate, args.break_after)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, interrupted)
    try:
        print(control(policy, robot, rate, args.seconds))
        return 0
    except EmergencyStop as reason:
        print(f"emergency stop: {reason}", file=sys.stderr)
        return 1
    finally:
        robot.stop()


if __name__ == "__main__":
    sys.exit(main())
