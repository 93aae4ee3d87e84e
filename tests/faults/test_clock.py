"""The wall clock is set a year back and forth: nothing but the dates of files may notice."""

import math
import os
import re
import struct
import time

import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.report import records
from recon_jax.report.progress import progress
from recon_jax.training import open_checkpoints, restore_checkpoint, save_checkpoint

from .runs import assert_same_end, checkpoints_of, finish

YEAR = 365 * 86400
PAST, FUTURE = 315_532_800, 4_102_444_800  # 1980 and 2100


def set_dates(folder, seconds):
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 1
    for path in paths:
        os.utime(path, (seconds, seconds))


def board_of(folder):
    """(tag, value) of every number written for TensorBoard."""
    from tensorboardX.proto.event_pb2 import Event

    numbers = []
    for path in folder.glob("events.*"):
        content, place = path.read_bytes(), 0
        while place < len(content):
            # A record: its length, a checksum of that, what it holds, a checksum of that.
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            numbers += [(value.tag, value.simple_value) for value in event.summary.value]
            place += 16 + length
    return numbers


def rates_of(text):
    """Steps and images a second in the lines of progress."""
    rates = re.findall(r"100% 40/40 \[\S+<00:00, +(\S+?)step/s, (\S+) images/s\]", text)
    return [float(number) for pair in rates for number in pair]


@pytest.mark.slow
def test_a_run_through_jumps_of_the_clock_ends_with_the_same_bits(tmp_path, whole):
    workdir = tmp_path / "run"
    there_and_back = {"start": YEAR, "8": 0, "14": -YEAR, "20": YEAR}
    finish(workdir, jumps=there_and_back, stop_at=26, sleep=0.01, tensorboard=True)
    newest = checkpoints_of(workdir)[-1]
    assert newest >= 24
    set_dates(workdir / "checkpoints" / str(newest), PAST)
    set_dates(workdir / "checkpoints" / "18", FUTURE)
    # It starts before the files of the first part were made.
    text = finish(
        workdir, jumps={"start": -YEAR, "33": YEAR}, resumed_from=newest, tensorboard=True
    )
    assert_same_end(workdir, whole())

    numbers = board_of(workdir / "tensorboard")
    rates = [value for tag, value in numbers if tag.endswith("s_per_second")]
    assert len([value for tag, value in numbers if tag == "train/loss"]) >= 10
    shown = rates_of(text)
    assert len(rates) >= 20
    assert len(shown) == 2
    assert all(math.isfinite(rate) and 1e-2 < rate < 1e7 for rate in rates + shown)


@pytest.mark.parametrize("dates", [(PAST, FUTURE), (FUTURE, PAST)])
def test_the_newest_checkpoint_is_that_of_the_highest_step(tmp_path, dates):
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        for step in (9, 10):  # of which 9 is the last in the order of names
            save_checkpoint(checkpoints, step, {"x": jnp.full(3, float(step))})
    for step, seconds in zip((9, 10), dates, strict=True):
        set_dates(tmp_path / str(step), seconds)
    with open_checkpoints(tmp_path, keep=2) as checkpoints:
        restored = restore_checkpoint(checkpoints, {"x": jnp.zeros(3)})
        assert (restored.step, float(restored.state["x"][0])) == (10, 10.0)
        save_checkpoint(checkpoints, 11, {"x": jnp.full(3, 11.0)})
    assert checkpoints_of(tmp_path.parent / "none") == []
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [10, 11]


@pytest.mark.parametrize("seconds", [PAST, FUTURE])
def test_cached_results_do_not_grow_old(tmp_path, seconds, monkeypatch):
    workdir = records.prepare_workdir(tmp_path / "run")

    def cached(key, value):
        return records.cached(workdir / "cache", "step", key, lambda: {"x": np.array(value)})["x"]

    assert cached({"seed": 0}, 1.0) == 1.0
    set_dates(workdir, seconds)
    assert cached({"seed": 0}, 2.0) == 1.0
    monkeypatch.setattr(time, "time", lambda: float(seconds))
    assert cached({"seed": 0}, 2.0) == 1.0
    assert cached({"seed": 1}, 2.0) == 2.0


def test_progress_is_measured_by_another_clock(monkeypatch, capsys):
    hours = iter(np.cumsum([0, 9000, -9000, -9000, 9000] * 100).tolist())
    monkeypatch.setattr(time, "time", lambda: 3600.0 * next(hours))
    list(progress(range(1, 6), "walk", every=0.0))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    for line in lines:
        assert re.fullmatch(r"walk: +\d+% \d/5 \[00:0\d<00:0\d, +\S+(it/s|s/it)\]", line), line
        assert "-" not in line
