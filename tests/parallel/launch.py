"""Start the processes of a training run, wait for it, and read what it left."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).parent / "workers" / "train.py"

# Runs are started again and again: what one has compiled the next ones read.
_CACHE = tempfile.TemporaryDirectory(prefix="recon_jax_compiled")


def environment():
    """For a worker: nothing of JAX's from outside, one thread, and the cache."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    return env | {
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "OPENBLAS_NUM_THREADS": "1",
        "JAX_COMPILATION_CACHE_DIR": _CACHE.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.3",
    }


def free_port():
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        return sock.getsockname()[1]


def start(folder, count, devices, *changes, **options):
    """One process for each index; what they say is in log<i> of the folder."""
    folder.mkdir(exist_ok=True)
    env = environment()
    shared = {"workdir": str(folder / "run"), "out": str(folder), "port": free_port()}
    processes = []
    for index in range(count):
        place = {"index": index, "count": count, "devices": devices}
        arguments = [json.dumps(shared | place | options), *map(json.dumps, changes)]
        with open(folder / f"log{index}", "a") as log:
            command = [sys.executable, str(WORKER), *arguments]
            processes.append(subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log))
    return processes


def log_of(folder, index=0):
    return (folder / f"log{index}").read_text()


def wait(folder, processes, seconds=240):
    """The exit codes; processes that do not end are killed."""
    deadline = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(deadline - time.monotonic(), 0.1))
    late = [index for index, process in enumerate(processes) if process.poll() is None]
    for index in late:
        processes[index].kill()
        processes[index].wait()
    assert not late, f"process {late[0]} did not end: {log_of(folder, late[0])[-3000:]}"
    return [process.returncode for process in processes]


def finish(folder, count, devices, *changes, **options):
    codes = wait(folder, start(folder, count, devices, *changes, **options))
    failed = [index for index, code in enumerate(codes) if code]
    assert not failed, log_of(folder, failed[0])[-6000:]


def wait_for_step(folder, processes, step):
    """Return once process 0 has asked for the batch of a step."""
    deadline = time.monotonic() + 150
    while True:
        with contextlib.suppress(OSError, ValueError):
            if int((folder / "step0").read_text()) >= step:
                return
        assert all(process.poll() is None for process in processes), log_of(folder)[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def curve(folder, split="train"):
    """The loss at every step, or the evaluated one."""
    lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    records = [record for record in records if record["split"] == split]
    assert [r["step"] for r in records] == sorted({r["step"] for r in records})
    return np.array([record["cross_entropy"] for record in records])


def arrays(folder, index=0):
    with np.load(folder / f"final{index}.npz") as saved:
        return [saved[name] for name in saved.files]
