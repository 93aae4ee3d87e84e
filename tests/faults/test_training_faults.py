"""Training runs that are killed, starved of disk, damaged, or started twice."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from recon_jax.training import lock_workdir

ROOT = Path(__file__).parents[2]
WORKER = ROOT / "tests" / "training" / "workers" / "train.py"


def command_of(workdir, devices, options):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    env |= {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(WORKER), str(workdir), str(devices), json.dumps(options)]
    return {"args": command, "cwd": ROOT, "env": env}


def start(workdir, devices=1, **options):
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(**command_of(workdir, devices, options), stdout=log, stderr=log)


def log_of(workdir):
    return Path(f"{workdir}.log").read_text()


def finish(workdir, devices=1, code=0, **options):
    # A pipe for its messages: to the worker a file could be as full as the disk.
    run = subprocess.run(
        **command_of(workdir, devices, options), capture_output=True, text=True, timeout=240
    )
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Runs that nothing interrupted, by number of devices."""
    done = {}

    def run(devices):
        if devices not in done:
            done[devices] = tmp_path_factory.mktemp("whole") / f"run{devices}"
            finish(done[devices], devices)
        return done[devices]

    return run


def damage_newest(workdir):
    newest = workdir / "checkpoints" / str(checkpoints_of(workdir)[-1])
    for data in newest.glob("state/**/d/*"):  # all: Orbax keeps some twice, and reads but one
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    return newest


@pytest.mark.parametrize("devices", [1, 8])
def test_killed_and_terminated_run_ends_with_the_same_bits(tmp_path, whole, devices):
    workdir = tmp_path / "run"
    # Other steps at each run of the tests; written down for the case that one fails.
    kill_at, stop_at = (int(n) for n in np.random.default_rng().integers([13, 26], [24, 36]))
    print(f"killed at {kill_at}, terminated at {stop_at}")

    process = start(workdir, devices, sleep=0.03)
    wait_until(
        process, workdir, lambda: step_of(workdir) >= kill_at and len(checkpoints_of(workdir)) > 1
    )
    owner = rf"in use by another live run \(process {process.pid} on "
    with pytest.raises(ValueError, match=owner), lock_workdir(workdir):
        pass
    process.kill()
    process.wait()
    with lock_workdir(workdir):  # its death released it
        pass
    assert not (workdir / "final.npz").exists()
    with open(workdir / "metrics.jsonl", "ab") as file:
        file.write(b'{"step": 2')  # as if it had died in the middle of a line
    damaged = damage_newest(workdir) if devices == 1 else None

    process = start(workdir, devices, sleep=0.03)
    wait_until(process, workdir, lambda: step_of(workdir) >= stop_at)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 0, log_of(workdir)
    assert not (workdir / "final.npz").exists()
    # Saved where it stopped: at most the prefetched batches before the one last asked for.
    assert step_of(workdir) - 4 <= checkpoints_of(workdir)[-1] <= step_of(workdir) + 1
    assert (f"checkpoint {damaged} is damaged" in log_of(workdir)) == (devices == 1)

    finish(workdir, devices)
    assert_same_end(workdir, whole(devices))


def test_a_full_disk_is_reported_and_nothing_saved_is_lost(tmp_path):
    workdir = tmp_path / "run"
    text = finish(workdir, code=1, limit_at=10, limit=3000)
    place = f"could not be written to {workdir / 'checkpoints'} (step 6 is kept)"
    # Not the last line: threads of Orbax complain after it.
    assert any(line.startswith("OSError: ") and place in line for line in text.splitlines())
    assert step_of(workdir) < 24  # at once, not at the end
    assert checkpoints_of(workdir) == [6]
