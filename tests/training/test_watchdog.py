import threading
import time

import pytest

from recon_jax.training.watchdog import watch_progress


def messages(caplog):
    return [record.getMessage() for record in caplog.records if "no step" in record.getMessage()]


def wait_until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_stall_is_told_once_a_limit_with_the_stacks(tmp_path, caplog):
    def hang_here():
        wait_until(lambda: len(messages(caplog)) >= 2)

    path = tmp_path / "run" / "stalled-process0.txt"
    with watch_progress(0.2, path.parent, start=7) as completed:
        hang_here()
        assert "after step 7; a process that is lost" in messages(caplog)[0]
        assert str(path) in messages(caplog)[0]
        wait_until(lambda: path.exists() and "in hang_here" in path.read_text())
        completed(8)
        told = len(messages(caplog))
        wait_until(lambda: len(messages(caplog)) > told + 1)
        assert "after step 8" in messages(caplog)[-1]
    assert not [thread for thread in threading.enumerate() if thread.name == "watchdog"]


def test_progress_is_left_alone(tmp_path, caplog):
    with watch_progress(5.0, tmp_path) as completed:
        for step in range(3):
            completed(step)
    with watch_progress(0, tmp_path) as completed:
        time.sleep(0.05)
        completed(1)
    assert messages(caplog) == []
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_cannot_be_written_does_not_end_the_watch(tmp_path, caplog):
    (tmp_path / "run").write_text("not a folder")
    with watch_progress(0.1, tmp_path / "run"):
        wait_until(lambda: len(messages(caplog)) >= 2)


def test_a_negative_limit_is_refused(tmp_path):
    with (
        pytest.raises(ValueError, match="watchdog_seconds=-1 must be positive, or 0"),
        watch_progress(-1, tmp_path),
    ):
        pass
