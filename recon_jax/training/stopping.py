"""The order to stop, by which clusters announce the end."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from recon_jax import parallel


@contextlib.contextmanager
def stop_wanted() -> Iterator[Callable[[], bool]]:
    """A function that says whether SIGTERM has arrived in any process; to be asked once a step."""
    if parallel.process_count() > 1:
        # JAX's own handler tells the others, and a step is agreed on after which all stop.
        yield parallel.preempted
        return
    noticed = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        # Python allows handlers in the main thread only; elsewhere JAX's, if any, must do.
        yield parallel.preempted
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: noticed.set())
    try:
        yield noticed.is_set
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
