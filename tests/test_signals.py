"""SIGTERM and SIGINT: one line, the conventional exit code, within seconds, nothing lost."""

import os
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from experiments import run_online, signals
from farl_jax import checkpoint
from tests.test_ablations import start
from tests.test_adaptation import demos, steps
from tests.test_online import assert_identical, frozen
from tests.test_seeds import UPDATE, judge, phase_of, rows_of, runs_of

offline, _ = frozen, (start, demos, steps, judge)  # fixtures of theirs


def asked(name: str, body: str, words: str, first: str = "pass") -> tuple[int, str, float]:
    """Exit code, stderr, and seconds to the end of a process signalled after `first`, in `body`."""
    code = f"""
import os, signal, sys, time
from experiments import signals
signals.GRACE = 1.0
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
def command():
    {first}
    print("ready", flush=True)
    {body}
    return 0
sys.exit(signals.guarded({words.split()!r}, command))
"""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **pipe)
    assert process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - started


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_what_does_not_train_stops_where_it_is(name, code):
    found, said, _ = asked(name, "time.sleep(60)", "offline runs/a")
    line = f"farl: stopped by {name}; go on with: farl offline runs/a --resume\n"
    assert (found, said) == (code, line)


def test_who_is_too_busy_to_answer_is_ended():
    words, deaf = "sweep --set safety.horizon=3", "signal.signal(15, lambda *_: None)"
    code, said, seconds = asked("SIGTERM", "time.sleep(60)", words, deaf)
    assert code == 143 and 0.9 < seconds < 10
    assert said.count("\n") == 1 and "go on with: farl sweep --set safety.horizon=3\n" in said


def test_a_second_signal_does_not_wait():
    first = "guard = signals.deferred(); guard.__enter__()"
    body = "while not signals.requested(): time.sleep(0.01)\n    print('asked', file=sys.stderr)"
    body += "\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    code, said, seconds = asked("SIGTERM", body, "online runs/a --resume", first)
    assert code == 130 and seconds < 10
    lines = said.splitlines()
    assert lines == ["asked", "farl: stopped by SIGINT; go on with: farl online runs/a --resume"]


def test_a_signal_inside_a_host_callback_is_not_taken_for_a_fault(capsys):
    def callback(x):
        os.kill(os.getpid(), signal.SIGTERM)
        raise signals.Stopped

    def command():
        jax.block_until_ready(jax.jit(lambda x: jax.pure_callback(callback, x, x))(np.float32(0)))
        return 0

    assert signals.guarded(["demos"], command) == 143
    assert capsys.readouterr().err.splitlines()[-1].endswith("farl demos --resume")
    assert not signals.requested()


def test_elsewhere_than_in_the_main_thread_nothing_changes():
    codes = []
    thread = threading.Thread(target=lambda: codes.append(signals.guarded(["x"], lambda: 5)))
    thread.start()
    thread.join()
    assert codes == [5] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_training_saves_and_the_resumed_run_ends_as_the_whole_one(tmp_path, offline, judge, capsys):
    """The signal comes with the row of step 512, and a checkpoint is due only at the end."""
    settings = {"updates": 6, "checkpoint_every": 6 * UPDATE}
    (whole,) = runs_of(tmp_path / "whole", offline, (0,), **settings)
    run_online.fine_tune([whole], "uni_o4", judge)
    (cut,) = runs_of(tmp_path / "cut", offline, (0,), **settings)
    said = cut.console.file.write

    def write(text):
        if "failures" in text and cut.console.file.getvalue().count("failures") == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return said(text)

    cut.console.file.write = write
    train = lambda: run_online.fine_tune([cut], "uni_o4", judge) and 0
    assert signals.guarded(["online", str(cut.path)], train) == 143
    folder = cut.path / "uni_o4" / "checkpoints"
    stopped = checkpoint.latest_step(folder)
    assert stopped == 3 * UPDATE  # the update under way was finished
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"farl: stopped by SIGTERM, saved at step {stopped}; "
        f"go on with: farl online {cut.path} --resume"
    )
    assert not (cut.path / "uni_o4" / "result.json").exists()

    (again,) = runs_of(tmp_path / "cut", offline, (0,), resume=True, **settings)
    run_online.fine_tune([again], "uni_o4", judge)
    key = jax.random.key(0)
    abstract = {"state": jax.eval_shape(phase_of("uni_o4").init, whole.offline_result(), key)}
    ends = [checkpoint.restore(r.path / "uni_o4" / "checkpoints", abstract) for r in (whole, cut)]
    assert ends[0][0] == ends[1][0] == 6 * UPDATE
    assert_identical(ends[0][1], ends[1][1])
    steps = [[row["step"] for row in rows_of(run)] for run in (whole, again)]
    assert steps == [[k * UPDATE for k in (0, 2, 4, 6)], [k * UPDATE for k in (0, 2, 3, 4, 6)]]
    assert rows_of(whole)[-1] == rows_of(again)[-1]
