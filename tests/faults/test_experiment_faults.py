"""A trained experiment that is killed at random steps ends as if it had not been."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUNS = [f"mlp-crop_flip-{cell}-seed0" for cell in ("top80", "bottom20", "all100")]


def start(workdir, devices):
    command = [
        *(sys.executable, "-m", "experiments.subspace_classification"),
        f"--workdir={workdir}",
        "--config.setups=(('mlp',{},'crop_flip'),)",
        "--config.data.train_limit=256",
        "--config.data.test_limit=100",
        "--config.data.image_size=8",
        "--config.top=(80.0,)",
        "--config.bottom=(20.0,)",
        "--config.train.epochs=10",
        "--config.train.batch_size=64",
        "--config.train.log_every=1",
    ]
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    env |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "OPENBLAS_NUM_THREADS": "1",
    }
    with open(f"{workdir}.log", "a") as log:
        return subprocess.Popen(command, cwd=ROOT, env=env, stdout=log, stderr=log)


def log_of(workdir):
    return Path(f"{workdir}.log").read_text()


def finish(workdir, devices):
    assert start(workdir, devices).wait(240) == 0, log_of(workdir)


def steps_of(workdir, run):
    with contextlib.suppress(OSError):
        text = (workdir / "runs" / run / "metrics.jsonl").read_text()
        return sum('"train"' in line for line in text.splitlines())
    return 0


def stop_at(workdir, devices, run, step, sent):
    process = start(workdir, devices)
    deadline = time.monotonic() + 180
    while steps_of(workdir, run) < step and process.poll() is None:
        assert time.monotonic() < deadline, log_of(workdir)
        time.sleep(0.002)
    process.send_signal(sent)
    # SIGTERM is an order to stop, which was obeyed.
    assert process.wait(120) == (0 if sent == signal.SIGTERM else -sent), log_of(workdir)
    assert not (workdir / "results.json").exists()


def outcome_of(workdir):
    """Everything that must not depend on interruptions."""
    files = {}
    for pattern in ("metrics.jsonl", "tables/*", "runs/*/metrics.jsonl"):
        for path in sorted(workdir.glob(pattern)):
            files[str(path.relative_to(workdir))] = path.read_bytes()
    for path in sorted(workdir.glob("runs/*/checkpoints/*/manifest/metadata")):
        content = json.loads(json.loads(path.read_text())["content"])
        name = str(path.relative_to(workdir))
        files[name] = {leaf: spec["sha256"] for leaf, spec in content["leaves"].items()}
    return files


def without_seconds(files):
    """Tables name the seconds of training in their note."""
    return {
        name: b"".join(line for line in content.splitlines() if b" of training in all " not in line)
        if name.startswith("tables/")
        else content
        for name, content in files.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 8])
def test_tables_metrics_and_parameters_survive_kills(tmp_path, devices):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(whole, devices)
    draw = random.Random(devices)
    first, second = sorted(draw.sample(range(len(RUNS)), 2))
    stop_at(broken, devices, RUNS[first], draw.randint(2, 30), signal.SIGKILL)
    stop_at(broken, devices, RUNS[second], draw.randint(2, 30), signal.SIGTERM)
    finish(broken, devices)
    expected, found = (without_seconds(outcome_of(path)) for path in (whole, broken))
    assert any(name.startswith("runs/") for name in expected)
    assert any("checkpoints" in name for name in expected)
    assert found == expected
