"""A process of several that dies or hangs: the others end with a message, and nothing is lost."""

import os
import signal
import time

import numpy as np
import pytest

from tests.parallel import launch


def kill_one(folder, victim, step):
    processes = launch.start(folder, 2, 1, sleep=0.05)
    launch.wait_for_step(folder, processes, step)
    processes[victim].kill()
    killed = time.monotonic()
    codes = launch.wait(folder, processes, 60)
    assert time.monotonic() - killed < 60
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] != 0
    message = f"ConnectionError: process {1 - victim} of 2 stopped, because another process"
    assert message in launch.log_of(folder, 1 - victim)
    assert "same command again in all processes to resume" in launch.log_of(folder, 1 - victim)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_goes_on(tmp_path, victim):
    kill_one(tmp_path / "ours", victim, 25)
    for folder in (tmp_path / "ours", tmp_path / "whole"):
        launch.finish(folder, 2, 1)
    ours, wanted = (launch.arrays(tmp_path / name) for name in ("ours", "whole"))
    for leaf, expected in zip(ours, wanted, strict=True):
        np.testing.assert_array_equal(leaf, expected)
    ours, wanted = (tmp_path / name / "run" / "metrics.jsonl" for name in ("ours", "whole"))
    assert ours.read_bytes() == wanted.read_bytes()


def test_a_process_that_hangs_is_noticed_and_ends_the_others(tmp_path):
    processes = launch.start(tmp_path, 2, 1, sleep=0.05, heartbeat=10, watchdog=2)
    launch.wait_for_step(tmp_path, processes, 25)
    os.kill(processes[1].pid, signal.SIGSTOP)  # alive, and its connections open
    stopped = time.monotonic()
    try:
        assert launch.wait(tmp_path, processes[:1], 60) != [0]
    finally:
        processes[1].kill()
        processes[1].wait()
    assert time.monotonic() - stopped < 60
    log = launch.log_of(tmp_path)
    assert "stopped sending heartbeats" in log
    # The watchdog spoke first, and wrote down where every thread was.
    assert "process 0: no step has completed for 2 s after step" in log
    stacks = (tmp_path / "run" / "stalled-process0.txt").read_text()
    assert "in _settle" in stacks or "in step" in stacks
