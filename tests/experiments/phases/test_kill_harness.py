"""The kill harness in its short form: real processes, real SIGKILL, the toy for physics."""

import os
import pathlib
import subprocess
import sys

import pytest

HARNESS = pathlib.Path(__file__).with_name("kill_harness.py")


@pytest.mark.slow  # a minute: seven processes that each compile
@pytest.mark.timeout(1200)
def test_a_run_killed_five_times_ends_as_the_one_left_alone():
    words = [sys.executable, HARNESS, "--kills", "5", "--toy", "--method", "uni_o4"]
    environment = {**os.environ, "PYTHONPATH": str(HARNESS.parents[3])}
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("5 kills, ")
