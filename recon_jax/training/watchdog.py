"""Notice that a run stands still, and say where: a hang leaves no message of its own."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import logging

from recon_jax import parallel


@contextlib.contextmanager
def watch_progress(
    seconds: float, folder: str | os.PathLike, start: int = 0
) -> Iterator[Callable[[int], None]]:
    """Warn when no step completes for a set time, and write down what every thread is doing.

    The stacks go to `stalled-process<i>.txt`, one entry each time the limit passes; the run itself
    is left alone, because it may only be slow.

    Args:
      seconds: the limit, more than 0; 0 watches nothing. Compilation counts.
      folder: for the stacks; created if needed, as processes may have disks of their own.
      start: step from which the run goes on.

    Returns:
      A context manager that gives completed(step), to be called after each step.

    Raises:
      ValueError: the limit is negative.
    """
    if seconds < 0:
        raise ValueError(f"watchdog_seconds={seconds} must be positive, or 0 for no watchdog")
    if not seconds:
        yield lambda step: None
        return
    last = (start, time.monotonic())  # the wall clock may jump
    stop = threading.Event()
    path = Path(folder) / f"stalled-process{parallel.process_index()}.txt"

    def completed(step: int) -> None:
        nonlocal last
        last = (step, time.monotonic())

    def run() -> None:
        reported = 0.0
        while not stop.wait(min(seconds / 4, 5.0)):
            step, since = last
            silent = time.monotonic() - max(since, reported)
            if silent > seconds:
                reported = time.monotonic()
                _report(path, step, reported - since)

    thread = threading.Thread(target=run, name="watchdog", daemon=True)
    thread.start()
    try:
        yield completed
    finally:
        stop.set()
        thread.join()


def _report(path: Path, step: int, seconds: float) -> None:
    logging.error(
        "process %d: no step has completed for %.0f s after step %d; a process that is lost, a "
        "slow disk or a long compilation may be why. What every thread is doing is in %s",
        parallel.process_index(),
        seconds,
        step,
        path,
    )
    with contextlib.suppress(OSError):  # the warning is out, and the disk may be what is wrong
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"\n{time.ctime()}: {seconds:.0f} s after step {step}\n")
            file.flush()
            faulthandler.dump_traceback(file, all_threads=True)
