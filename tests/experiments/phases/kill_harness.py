"""Kill a training run at random moments, resume it each time, and compare it with one left alone.

    python tests/experiments/phases/kill_harness.py --kills 50
    python tests/experiments/phases/kill_harness.py --kills 50 --toy

The run is `farl online` on Bounded Push with native physics, or with --toy the same phase on the
cliff walker, which compiles in no time. It is tiny, and starts from random networks. Every attempt
is a process of its own, killed by SIGKILL: in turn at a random moment of its training, within a
save (from when its folder appears), and at a random moment of all of it, start-up included.
Whenever an attempt reaches the end, the last checkpoint must equal, bit for bit, that of the run
left alone, and so must the rows of metrics and the result, but for their seconds; then the next run
starts. Prints one line a kill and exits with 1 where anything differed.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from rich.console import Console

from experiments import cli
from experiments.phases.demos import KINDS
from experiments.phases.offline import run_metadata
from experiments.phases.online import fine_tune
from experiments.process.machine import prepare_jax
from experiments.runs.presets import RunSettings, preset, with_settings
from experiments.runs.run import Run, open_run, start_run
from farl_jax.data import dataset
from farl_jax.storage import checkpoint, metrics
from tests.toy import make_toy

TOY = "cliff_walker"
UPDATE = 4 * 16  # env steps
UPDATES = 60
SAVE_EVERY = 3  # updates
CHANGES: dict[str, Any] = {
    "network.width": 16,
    "network.depth": 1,
    "network.critic_depth": 1,
    "world_model.width": 16,
    "world_model.latent": 8,
    "world_model.simnorm_group": 4,
    "world_model.bins": 5,
    "world_model.train_horizon": 4,
    "world_model.chunk": 4,
    "world_model.batch": 16,
    "safety.horizon": 2,
    "safety.hold": 1,
    "mppi.horizon": 3,
    "adaptation.every": 4,
    "adaptation.windows": 64,
    "adaptation.failing_windows": 16,
    "adaptation.windows_per_rollout": 8,
    "online.num_envs": 4,
    "online.rollout": 16,
    "online.minibatches": 2,
    "online.epochs": 2,
    "online.critic_warmup": 4 * UPDATE,
    "online.env_steps": UPDATES * UPDATE,
    "online.eval_every": UPDATES // 2 * UPDATE,
    "online.checkpoint_every": SAVE_EVERY * UPDATE,
    "online.eval_episodes": 2,
    "online.final_episodes": 2,
}
SHARE = 0.25
"""A kill comes after at most this share of the run left alone, so that some kills fit into one."""


class ToyRun(Run):
    """A run on the toy."""

    def env(self, num_envs: int) -> Any:
        """Cliff walkers."""
        return make_toy(num_envs)


def toyed(run: Run) -> Run:
    """The same run, on the toy where its settings say so."""
    kind = ToyRun if run.settings.task == TOY else Run
    return kind(run.path, run.settings, run.resume, run.console)


def prepare(
    path: Path,
    toy: bool,
    task: str = "bounded_push",
    name: str = "smoke",
    changes: Mapping[str, Any] = MappingProxyType(CHANGES),
) -> None:
    """A run with everything but its online phase: random networks, and demonstrations of noise."""
    import jax

    config = with_settings(preset(name), changes)
    settings = RunSettings(TOY if toy else task, name, 0, "native", config)
    run, folder = start_run(path, settings, Console(), resume=False)
    run = toyed(run)
    draw, rows = np.random.default_rng(0), 200
    seen, acted = run.env(1).observation_size, run.env(1).action_size
    wide = {"obs": seen, "next_obs": seen, "action": acted, "intended": acted}
    data = {
        name: draw.random((rows, wide[name]) if name in wide else rows).astype(kind)
        for name, kind in dataset.FIELDS.items()
    }
    data["failure"] = draw.random(rows) < 0.2
    data["terminated"] = np.zeros(rows, bool)
    data["episode"] = np.arange(rows, dtype=np.int32) // 50
    data["truncated"] = np.arange(rows) % 50 == 49
    for kind in KINDS:
        dataset.save_dataset(path / "demos" / f"{kind}.npz", data, {"task": run.task_name})
    leaves, structure = jax.tree.flatten(run.networks().abstract_agent())
    drawn = [0.3 * draw.standard_normal(leaf.shape).astype(leaf.dtype) for leaf in leaves]
    result = jax.tree.unflatten(structure, drawn)
    result = result.replace(normalizer=jax.tree.map(np.ones_like, result.normalizer))
    checkpoint.save(path / "offline", 0, {"result": result}, run_metadata(run, "offline"))
    folder.close()


def train(path: Path, method: str) -> int:
    """The online phase of a prepared run, from the start or from its newest checkpoint."""
    if json.loads((path / "config.json").read_text())["task"] != TOY:
        return cli.main(["online", str(path), "--method", method, "--resume"])
    run, folder = open_run(path, Console(width=110), resume=True)
    with folder:
        fine_tune([toyed(run)], method)
    return 0


def forked(log: Path, body: Callable[[], int | None]) -> int:
    """The process that runs `body` and writes what it says into `log`."""
    process = os.fork()
    if process:
        return process
    code = 70
    with log.open("a", buffering=1) as out:
        sys.stdout = sys.stderr = out
        os.dup2(out.fileno(), 2)
        try:
            prepare_jax()
            code = body() or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            out.flush()
            os._exit(code)


def code_of(process: int, timeout: float | None = None) -> int | None:
    """Its exit code, negative for a signal; None while it still runs after `timeout` seconds."""
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        found, status = os.waitpid(process, 0 if until is None else os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            return None
        time.sleep(0.001)


def ended(folder: Path) -> dict[str, Any]:
    """What a finished method left: digests of its last state by leaf, its rows and its result."""
    from orbax.checkpoint import v1 as ocp

    last = checkpoint.latest_step(folder / "checkpoints")
    state = ocp.load_checkpointables(folder / "checkpoints" / str(last) / "orbax")["state"]
    import jax

    raw = lambda x: jax.random.key_data(x) if "key" in str(x.dtype) else x
    digests = {
        k: hashlib.sha256(np.asarray(raw(v)).tobytes()).hexdigest() for k, v in state.items()
    }
    timeless = lambda row: {k: v for k, v in row.items() if k != "wall_seconds"}
    return {
        "step": last,
        "best": checkpoint.best_step(folder / "checkpoints"),
        "state": digests,
        "rows": [timeless(row) for row in metrics.read_metrics(folder / metrics.FILE)],
        "result": timeless(json.loads((folder / "result.json").read_text())),
    }


def differences(left: Any, right: Any, name: str = "") -> list[str]:
    """Dotted names of all that differs."""
    if isinstance(left, dict) and isinstance(right, dict):
        both = [*left, *(key for key in right if key not in left)]
        parts = (differences(left.get(k), right.get(k), f"{name}.{k}") for k in both)
        return [found for part in parts for found in part]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [found for i, pair in pairs for found in differences(*pair, f"{name}.{i}")]
    return [] if left == right else [name.strip(".")]


class Harness:
    """One prepared run, the end of the run left alone, and kills of copies of it."""

    def __init__(self, root: Path, method: str, seed: int, toy: bool) -> None:
        """Prepare, and leave a run alone once."""
        self.root, self.method, self.draw = root, method, random.Random(seed)
        self.log = root / "log.txt"
        self.fresh, self.path = root / "fresh", root / "run"
        if code_of(forked(self.log, lambda: prepare(self.fresh, toy))) != 0:
            raise SystemExit(f"cannot prepare the run:\n{self.log.read_text()}")
        shutil.copytree(self.fresh, self.path)
        started = time.monotonic()
        process = self.start()
        self._begun(process)
        self.startup = time.monotonic() - started
        if code_of(process) != 0:
            raise SystemExit(f"the run left alone failed:\n{self.log.read_text()}")
        self.seconds = time.monotonic() - started
        self.expected = self.end()
        self.differing: list[str] = []
        self.finished = 0
        self.renew()

    def start(self) -> int:
        """Start or resume the online phase in a process."""
        self.said = self.log.stat().st_size
        return forked(self.log, lambda: train(self.path, self.method))

    def end(self) -> dict[str, Any]:
        """`ended`, from a process of its own."""
        answer = self.root / "ended.json"
        body = lambda: answer.write_text(json.dumps(ended(self.path / self.method))) and None
        if code_of(forked(self.log, body)) != 0:
            raise SystemExit(f"cannot read the end:\n{self.log.read_text()[-3000:]}")
        return json.loads(answer.read_text())

    def renew(self) -> None:
        """A run that has not begun."""
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.copytree(self.fresh, self.path)

    def check(self) -> None:
        """Compare a run that reached its end; start another."""
        found = differences(self.expected, self.end())
        self.finished += 1
        self.differing += found[:1]
        print(
            f"  finished: {'differs in ' + ', '.join(found[:5]) if found else 'equal'}", flush=True
        )
        self.renew()

    def attempt(self, kind: str | None) -> bool:
        """Start or resume, and kill; False where the run ended first, as without a `kind`."""
        process = self.start()
        training = max(0.2, SHARE * (self.seconds - self.startup))
        if kind == "training":
            delay = self.draw.uniform(0.0, training) if self._begun(process) else 0.0
        elif kind == "save":
            delay = self.draw.uniform(0.0, 0.2) if self._saving(process) else 0.0
        else:
            delay = self.draw.uniform(0.0, self.startup + training)
        code = code_of(process, None if kind is None else delay)
        if code is None:
            os.kill(process, signal.SIGKILL)
            code = code_of(process)
        if code == -signal.SIGKILL:
            return True
        if code != 0:
            raise SystemExit(f"an attempt failed with {code}:\n{self.log.read_text()[-3000:]}")
        self.check()
        return False

    def _begun(self, process: int) -> bool:
        """Wait until this attempt has trained for some updates."""
        return self._until(process, lambda: b"failures" in self.log.read_bytes()[self.said :])

    def _saving(self, process: int) -> bool:
        """Wait until this attempt is within one of its first saves."""
        folder = self.path / self.method / "checkpoints"
        # a killed attempt's folder lies there until the next save; each save makes its own
        stale = {_inode(path) for path in folder.glob("*.incoming")}
        under_way = lambda: {_inode(path) for path in folder.glob("*.incoming")} - stale - {None}
        for _ in range(self.draw.randint(0, 3)):  # saves to let pass
            self._until(process, under_way)
            self._until(process, lambda: not under_way())
        return self._until(process, under_way)

    def _until(self, process: int, seen: Callable[[], Any]) -> bool:
        while not seen():
            # left as it is for whoever asks for its exit code
            if os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            time.sleep(0.001)
        return True


def _inode(path: Path) -> int | None:
    """Which folder this is; None where it is gone."""
    try:
        return path.stat().st_ino
    except OSError:
        return None


def main() -> int:
    """Run the harness; 1 where anything differed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--method", default="farl")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--toy", action="store_true", help="no physics: a second or so a start")
    options = parser.parse_args()
    kills, started = 0, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="kill_harness_") as root:
        harness = Harness(Path(root), options.method, options.seed, options.toy)
        alone = f"{harness.seconds:.1f} s, {harness.startup:.1f} s of it to start up"
        print(f"left alone: {alone}", flush=True)
        while kills < options.kills:
            kind = ("training", "save", "any")[kills % 3]
            if harness.attempt(kind):
                kills += 1
                step = checkpoint.latest_step(harness.path / options.method / "checkpoints") or 0
                now = time.monotonic() - started
                print(f"kill {kills}, {kind}: newest step {step:,}, {now:.0f} s", flush=True)
        while harness.attempt(None):
            pass
    print(
        f"{kills} kills, {harness.finished} runs finished, {len(harness.differing)} differing, "
        f"{time.monotonic() - started:.0f} s"
    )
    return 1 if harness.differing else 0


if __name__ == "__main__":
    sys.exit(main())
