"""`farl bench compare REV`: speed of the gated online loop, here and in another commit.

Machines differ and change by the hour, so only ratios within one run count. The two checkouts take
turns. Each measurement is a new process of `farl bench train`.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from experiments.arguments_bench import BenchCompareArgs
from experiments.errors import UserError
from experiments.process.machine import describe_environment
from experiments.process.outputs import check_output, write_json

_START = "import sys; from experiments.cli import main; sys.exit(main())"


def run(args: BenchCompareArgs, console: Console) -> dict[str, Any]:
    """Measure both checkouts `args.rounds` times in turn; print and return the ratio."""
    from envs_mjx import task_class

    task_class(args.task)  # raises on an unknown task
    check_output("--out", args.out)
    here = Path(__file__).resolve().parents[2]
    commit = commit_of(here, args.rev)
    ours: list[float] = []
    theirs: list[float] = []
    with worktree(here, commit) as other:
        for turn in range(args.rounds):
            ours.append(_seconds(here, args))
            theirs.append(_seconds(other, args))
            console.print(
                f"round {turn + 1} of {args.rounds}: {ours[-1]:.3f} s an update here, "
                f"{theirs[-1]:.3f} s at {args.rev}",
                style="dim",
            )
    row = {"task": args.task, "rev": commit} | compare(ours, theirs)
    console.print(
        f"{args.task}: {row['ratio']:.2f} times as fast as {args.rev} "
        f"(pairs: {row['lowest']:.2f} to {row['highest']:.2f}); "
        f"medians {row['here_seconds']:.3f} and {row['rev_seconds']:.3f} s an update",
        highlight=False,
        soft_wrap=True,
    )
    if args.out is not None:
        write_json(args.out, row | {"environment": describe_environment()})
    return row


def compare(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return our speed-up from seconds of R turns each.

    `ratio` is their median over ours; `lowest` and `highest` are over single turns.
    """
    pairs = np.asarray(theirs) / np.asarray(ours)
    medians = float(np.median(ours)), float(np.median(theirs))
    return {
        "ratio": medians[1] / medians[0],
        "lowest": float(pairs.min()),
        "highest": float(pairs.max()),
        "here_seconds": medians[0],
        "rev_seconds": medians[1],
    }


def commit_of(repository: Path, rev: str) -> str:
    """Return the full hash of the commit that `rev` names.

    Raises:
        UserError: there is no such commit, or this is not a git checkout.
    """
    words = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
    done = _git(repository, *words)
    if done.returncode:
        raise UserError(
            f"REV {rev!r} names no commit of {repository}; `git log --oneline` lists them"
        )
    return done.stdout.strip()


@contextmanager
def worktree(repository: Path, commit: str) -> Iterator[Path]:
    """Check out `commit` into a temporary folder and remove it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkout")
        done = _git(repository, "worktree", "add", "--detach", str(path), commit)
        if done.returncode:
            reason = (done.stderr.strip() or "git failed").splitlines()[-1]
            raise UserError(f"commit {commit} cannot be checked out: {reason}")
        try:
            yield path
        finally:
            _git(repository, "worktree", "remove", "--force", str(path))


def _git(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run git without its own variables: within a hook, they name another checkout."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(repository), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ours)


def _seconds(checkout: Path, args: BenchCompareArgs) -> float:
    """Return the seconds of one policy update of the whole loop in `checkout`."""
    # Set by environment, since a commit may start processes that must import it, too.
    path = os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")]))
    variables = os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1"}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "row.json")
        command = [sys.executable, "-c", _START, "bench", "train", "--no-cold"]
        command += ["--task", args.task, "--num-envs", str(args.num_envs)]
        command += ["--seconds", str(args.seconds), "--out", str(out)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=folder, env=variables
        )
        if done.returncode:
            last = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
            raise UserError(f"{checkout}: bench train: {last.removeprefix('farl: ')}")
        (row,) = json.loads(out.read_text(encoding="utf-8"))["rows"]
    return row["steps_per_update"] / row["steps_per_second"]
