"""Starting, ending and comparing the training runs of tests/training/workers/train.py."""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from tests.parallel import launch

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "training" / "workers" / "train.py"


def command_of(workdir, devices=1, options=None, inside=()):
    command = [sys.executable, str(WORKER), str(workdir), str(devices), json.dumps(options or {})]
    return {"args": [*inside, *command], "cwd": ROOT, "env": launch.environment()}


def start(workdir, devices=1, **options):
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(**command_of(workdir, devices, options), stdout=log, stderr=log)


def log_of(workdir):
    return Path(f"{workdir}.log").read_text()


def finish(workdir, devices=1, code=0, inside=(), **options):
    command = command_of(workdir, devices, options, inside)
    # A pipe for its messages: to the worker a file could be as full as the disk.
    run = subprocess.run(**command, capture_output=True, text=True, timeout=150)
    assert run.returncode == code, run.stderr
    return run.stderr


def step_of(workdir):
    """The newest batch that the run asked for."""
    with contextlib.suppress(OSError, ValueError):
        return int(Path(f"{workdir}.step").read_text())
    return -1


def checkpoints_of(workdir):
    return sorted(
        int(path.name) for path in workdir.glob("checkpoints/[0-9]*") if path.name.isdigit()
    )


def wait_until(process, workdir, condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, log_of(workdir)
        assert time.monotonic() < deadline
        time.sleep(0.002)


def assert_same_end(workdir, whole):
    with np.load(workdir / "final.npz") as ours, np.load(whole / "final.npz") as expected:
        assert ours.files == expected.files
        for name in expected.files:
            np.testing.assert_array_equal(ours[name], expected[name])
    assert (workdir / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert checkpoints_of(workdir) == checkpoints_of(whole) == [36, 40]
