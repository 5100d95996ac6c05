"""`farl bench compare REV`: this checkout's gated online loop beside another commit's.

Machines differ and change by the hour, so only ratios of one run mean anything. The two checkouts
take turns, each measurement in a process of its own, through `farl bench train`.
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

from experiments.arguments import BenchCompareArgs
from experiments.errors import UserError
from experiments.process.machine import describe_environment
from experiments.process.outputs import check_output, write_json

_START = "import sys; from experiments.cli import main; sys.exit(main())"


def run(args: BenchCompareArgs, console: Console) -> dict[str, Any]:
    """Measure both checkouts `args.rounds` times in turn; prints and returns the ratio."""
    from envs_mjx import task_class

    task_class(args.task)  # refuses an unknown one
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
                f"{turn + 1} of {args.rounds}: here {ours[-1]:.3f} s an update, "
                f"{args.rev} {theirs[-1]:.3f} s",
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
    """How many times as fast we are, from seconds of turns [R] each.

    `ratio` is their median over ours; `lowest` and `highest` are the ratios of single turns.
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
    """The full hash of the commit that `rev` names.

    Raises:
        UserError: it names none here, or this is no git checkout.
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
    """A checkout of `commit` in a temporary folder; gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkout")
        done = _git(repository, "worktree", "add", "--detach", str(path), commit)
        if done.returncode:
            reason = (done.stderr.strip() or "git failed").splitlines()[-1]
            raise UserError(f"{commit} cannot be checked out: {reason}")
        try:
            yield path
        finally:
            _git(repository, "worktree", "remove", "--force", str(path))


def _git(repository: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Git's own variables do not count: within a hook, they name somebody else's checkout."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(repository), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=ours)


def _seconds(checkout: Path, args: BenchCompareArgs) -> float:
    """Seconds of one policy update of the whole loop in `checkout`."""
    # By the environment: a commit may start processes of its own, which must find it, too.
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
