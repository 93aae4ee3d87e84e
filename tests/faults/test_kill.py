"""A run that is killed at any moment resumes to bit-identical results."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start(workdir):
    arguments = [f"--workdir={workdir}", "--smoke"]
    with open(f"{workdir}.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "experiments.alignment", *arguments],
            cwd=ROOT,
            stdout=log,
            stderr=log,
        )


def finish(process, workdir):
    assert process.wait(240) == 0, Path(f"{workdir}.log").read_text()


def numbers(workdir):
    results = json.loads((workdir / "results.json").read_text())
    for corruption in results["corruptions"]:
        del corruption["seconds"]
    return {key: results[key] for key in ("summary", "setting", "corruptions", "sweep")}


def stop(workdir, sent, steps):
    """End a run once that many steps are finished and the next is under way; what it kept."""
    process = start(workdir)
    deadline = time.monotonic() + 240
    while len(list(workdir.glob("cache/*.npz"))) < steps and time.monotonic() < deadline:
        assert process.poll() is None, Path(f"{workdir}.log").read_text()
        time.sleep(0.01)
    process.send_signal(sent)
    # SIGTERM is an order to stop, which was obeyed.
    assert process.wait(60) == (0 if sent == signal.SIGTERM else -sent)
    assert not (workdir / "results.json").exists()
    kept = {path: path.read_bytes() for path in workdir.glob("cache/*.npz")}
    assert len(kept) >= steps
    return kept


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_numbers(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole), whole)
    kept = stop(broken, signal.SIGKILL, 1) | stop(broken, signal.SIGTERM, 5)
    finish(start(broken), broken)
    assert numbers(broken) == numbers(whole)
    for path, content in kept.items():
        assert path.read_bytes() == content
