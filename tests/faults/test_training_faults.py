"""Training runs that are killed, starved of disk, damaged, or started twice."""

import re
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from recon_jax.training import lock_workdir

from .runs import (
    assert_same_end,
    checkpoints_of,
    command_of,
    finish,
    log_of,
    start,
    step_of,
    wait_until,
)


def damage_newest(workdir):
    newest = workdir / "checkpoints" / str(checkpoints_of(workdir)[-1])
    for data in newest.glob("state/**/d/*"):  # all: Orbax keeps some twice, and reads but one
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    return newest


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=pytest.mark.slow)])
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


def test_of_two_runs_started_at_once_one_is_refused(tmp_path, whole):
    workdir, gate = tmp_path / "run", tmp_path / "gate"
    gate.mkdir()
    command = command_of(workdir, options={"sleep": 0.02, "gate": str(gate)})
    two = [subprocess.Popen(**command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        deadline = time.monotonic() + 120
        while len(list(gate.iterdir())) < 2:
            assert all(process.poll() is None for process in two)
            assert time.monotonic() < deadline
            time.sleep(0.002)
        (gate / "open").touch()
        texts = {process: process.communicate(timeout=120)[1] for process in two}
    finally:
        for process in two:
            process.kill()
    winner, loser = sorted(two, key=lambda process: process.returncode)
    assert (winner.returncode, loser.returncode) == (0, 1), texts
    # Unknown in the moment between taking the lock and writing down who did.
    owner = rf"(process {winner.pid} on \S+|unknown)"
    assert re.fullmatch(
        rf"ValueError: workdir {workdir} is in use by another live run \({owner}\); "
        "wait for it, stop it, or choose another workdir",
        texts[loser].splitlines()[-1],
    )
    assert_same_end(workdir, whole())


def assert_disk_reported(text, workdir, step):
    place = f"could not be written to {workdir / 'checkpoints'} (step {step} is kept): "
    # Not the last line: threads of Orbax complain after it.
    (line,) = [line for line in text.splitlines() if line.startswith("OSError: the ")]
    assert place in line
    assert line.endswith(
        "; make room, or make the folder writable, and run the same command again to resume"
    )


def test_a_file_that_cannot_grow_is_reported_and_nothing_saved_is_lost(tmp_path):
    workdir = tmp_path / "run"
    assert_disk_reported(finish(workdir, code=1, limit_at=10, limit=3000), workdir, 6)
    assert step_of(workdir) < 24  # at once, not at the end
    assert checkpoints_of(workdir) == [6]


class Disk(NamedTuple):
    """A file system in memory, of a size of its own, that only some processes see.

    Attributes:
      inside: what to put before a command for it to see the disk.
      folder: the disk as seen by all others.
      resize: gives it another size in bytes.
    """

    inside: list
    folder: Path
    resize: object


@pytest.fixture
def make_disk():
    """A function that puts a disk at a path; skips the test where that is not allowed.

    It lies in a mount namespace that ends with its only process, so nothing stays mounted
    even if the tests are killed.
    """
    holders = []

    def make(path, size):
        path.mkdir()
        script = 'mount -t tmpfs -o size="$2" tmpfs "$1" && echo mounted && exec cat'
        command = ["unshare", "-r", "-m", "sh", "-c", script, "sh", str(path), str(size)]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        try:
            holder = subprocess.Popen(command, **pipes, text=True)
        except FileNotFoundError:
            pytest.skip("needs unshare and nsenter, of util-linux")
        holders.append(holder)
        if holder.stdout.readline() != "mounted\n":
            pytest.skip(f"mounting a tmpfs is not allowed here: {holder.stderr.read().strip()}")
        inside = ["nsenter", "-t", str(holder.pid), "-U", "-m", "--preserve-credentials"]

        def resize(size):
            # With its source named, mount does not repeat options that are not allowed here.
            options = ["-t", "tmpfs", "-o", f"remount,size={size}"]
            subprocess.run([*inside, "mount", *options, "tmpfs", str(path)], check=True)

        return Disk(inside, Path(f"/proc/{holder.pid}/root{path}"), resize)

    yield make
    for holder in holders:
        holder.communicate(timeout=30)


def blocks_of(folder, block=4096):
    """Bytes that the files of a folder take on a disk that gives them whole blocks."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert sizes
    return sum(-(-size // block) * block for size in sizes)


def test_a_full_disk_is_reported_and_nothing_saved_is_lost(tmp_path, whole, make_disk):
    workdir, size = tmp_path / "run", blocks_of(whole() / "checkpoints" / "40")
    disk = make_disk(workdir, int(1.5 * size))
    assert_disk_reported(finish(workdir, code=1, inside=disk.inside), workdir, 6)
    assert step_of(workdir) < 24
    assert checkpoints_of(disk.folder) == [6]
    disk.resize(6 * size)
    finish(workdir, inside=disk.inside, resumed_from=6)
    assert_same_end(disk.folder, whole())
