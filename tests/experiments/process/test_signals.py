"""SIGTERM and SIGINT: one line, the conventional exit code, within seconds, nothing lost."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest

from experiments.phases import online
from experiments.process import signals
from farl_jax.storage import checkpoint
from tests.farl_jax.online.test_loop import assert_identical, frozen
from tests.farl_jax.online.test_seeds import UPDATE, judge, phase_of, rows_of, runs_of
from tests.farl_jax.test_ablations import start
from tests.farl_jax.world_model.test_adaptation import demos, steps

offline, _ = frozen, (start, demos, steps, judge)  # fixtures of theirs


def asked(name: str, body: str, words: str, first: str = "pass") -> tuple[int, str, float]:
    """Exit code, stderr, and seconds to the end of a process signalled after `first`, in `body`."""
    code = f"""
import os, signal, sys, time
from experiments.process import signals
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
    line = f"farl: stopped by {name}; continue with: farl offline runs/a --resume\n"
    assert (found, said) == (code, line)


def test_who_is_too_busy_to_answer_is_ended():
    words, deaf = "sweep --set safety.horizon=3", "signal.signal(15, lambda *_: None)"
    code, said, seconds = asked("SIGTERM", "time.sleep(60)", words, deaf)
    assert code == 143 and 0.9 < seconds < 10
    assert said.count("\n") == 1 and "continue with: farl sweep --set safety.horizon=3\n" in said


def test_a_second_signal_does_not_wait():
    first = "guard = signals.deferred(); guard.__enter__()"
    body = "while not signals.requested(): time.sleep(0.01)\n    print('asked', file=sys.stderr)"
    body += "\n    os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    code, said, seconds = asked("SIGTERM", body, "online runs/a --resume", first)
    assert code == 130 and seconds < 10
    lines = said.splitlines()
    assert lines == ["asked", "farl: stopped by SIGINT; continue with: farl online runs/a --resume"]


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


def test_a_signal_inside_an_import_is_not_taken_for_a_fault(capsys):
    def command():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except signals.Stopped as stop:
            raise ImportError("an extension does not start") from stop

    assert signals.guarded(["demos"], command) == 143
    assert capsys.readouterr().err.count("\n") == 1


def test_a_signal_that_a_callback_of_the_collector_swallows_comes_again():
    first = "import gc; gc.callbacks.append(lambda *_: time.sleep(0.4))"
    code, said, _ = asked("SIGTERM", "gc.collect(); time.sleep(60)", "bench", first)
    line = "farl: stopped by SIGTERM; continue with: farl bench\n"
    assert (code, said) == (143, line)  # the watch says another


def command_line(body: str) -> str:
    """A process of `farl demos` with this body instead of the command's own."""
    return f"""
import sys, threading, time
import jax, numpy as np
from experiments import cli, entry
def command(_):
{textwrap.indent(textwrap.dedent(body), "    ")}
kind, _, text = cli.COMMANDS["demos"]
cli.COMMANDS["demos"] = (kind, command, text)
sys.argv = ["farl", "demos"]
entry.entry()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR2", 140)])
def test_a_process_whose_threads_are_at_work_ends_by_the_signal(name, code):
    """Today's simulators call back into Python while the interpreter would end."""
    body = """
        same = lambda x: jax.pure_callback(lambda x: x, x, x)
        turn = lambda c: (c[0] + 1, same(c[1]))
        roll = jax.jit(lambda x: jax.lax.while_loop(lambda c: c[0] < 10**7, turn, (0, x)))
        roll = roll.lower(np.float32(0)).compile()
        for _ in range(2):
            threading.Thread(target=roll, args=(np.float32(0),), daemon=True).start()
        time.sleep(0.3)
        print("ready", flush=True)
        time.sleep(60)
    """
    assert ended(command_line(body), name) == (code, f"farl: stopped by {name}; {AGAIN}\n")


def test_a_signal_at_the_start_is_answered_too():
    start = "import sys; from experiments import cli, entry; sys.argv = ['farl', 'demos']\n"
    wait = "cli.main = lambda _: (print('ready', flush=True), __import__('time').sleep(60))\n"
    found = ended(f"{start}{wait}entry.entry()", "SIGTERM")
    assert found == (143, f"farl: stopped by SIGTERM; {AGAIN}\n")


def test_a_signal_ends_a_process_whose_stderr_nobody_reads():
    body = "read, write = os.pipe(); os.close(read); os.dup2(write, 2)\n    time.sleep(60)"
    code, _, _ = asked("SIGTERM", body.replace("time", "signals._end([], 15, ''); time"), "bench")
    assert code == 143


AGAIN = "continue with: farl demos --resume"


def ended(code: str, name: str) -> tuple[int, str]:
    """Exit code and stderr of a process that gets the signal once it says that it is ready."""
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    process = subprocess.Popen([sys.executable, "-c", heard + code], **pipe)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    return process.returncode, said


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
    online.fine_tune([whole], "uni_o4", judge)
    (cut,) = runs_of(tmp_path / "cut", offline, (0,), **settings)
    said = cut.console.file.write

    def write(text):
        if "failures" in text and cut.console.file.getvalue().count("failures") == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return said(text)

    cut.console.file.write = write
    train = lambda: online.fine_tune([cut], "uni_o4", judge) and 0
    assert signals.guarded(["online", str(cut.path)], train) == 143
    folder = cut.path / "uni_o4" / "checkpoints"
    stopped = checkpoint.latest_step(folder)
    assert stopped == 3 * UPDATE  # the update under way was finished
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"farl: stopped by SIGTERM, saved at step {stopped}; "
        f"continue with: farl online {cut.path} --resume"
    )
    assert not (cut.path / "uni_o4" / "result.json").exists()

    (again,) = runs_of(tmp_path / "cut", offline, (0,), resume=True, **settings)
    online.fine_tune([again], "uni_o4", judge)
    key = jax.random.key(0)
    abstract = {"state": jax.eval_shape(phase_of("uni_o4").init, whole.offline_result(), key)}
    ends = [checkpoint.restore(r.path / "uni_o4" / "checkpoints", abstract) for r in (whole, cut)]
    assert ends[0][0] == ends[1][0] == 6 * UPDATE
    assert_identical(ends[0][1], ends[1][1])
    steps = [[row["step"] for row in rows_of(run)] for run in (whole, again)]
    assert steps == [[k * UPDATE for k in (0, 2, 4, 6)], [k * UPDATE for k in (0, 2, 3, 4, 6)]]
    assert rows_of(whole)[-1] == rows_of(again)[-1]
