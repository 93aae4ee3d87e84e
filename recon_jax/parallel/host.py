"""The host: its cores, its memory allocator, and work spread over its threads."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")


def cpu_cores() -> int:
    """Number of CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_for_accelerators = contextvars.ContextVar("for_accelerators", default=False)


def is_cpu() -> bool:
    """True where the host's CPU is what JAX computes on, one device or simulated ones."""
    return jax.default_backend() == "cpu" and not _for_accelerators.get()


@contextlib.contextmanager
def tracing_for_accelerators() -> Iterator[None]:
    """Within it programs are traced as accelerators run them, whatever this machine is.

    For looking at them: on a CPU, models replace some convolutions by matrix products.
    """
    token = _for_accelerators.set(True)
    try:
        yield
    finally:
        _for_accelerators.reset(token)


def is_single_cpu() -> bool:
    """True on one CPU device of one process, where the host's BLAS is the fastest engine."""
    return is_cpu() and jax.local_device_count() == 1 and jax.process_count() == 1


def tune_allocator() -> bool:
    """Make malloc keep the memory of large arrays instead of returning it after every step.

    By default glibc maps each array over 32 MB anew, and on the CPU the page faults can take longer
    than the arithmetic. The price is memory that stays with the process. It concerns the whole
    process, so programs call it, before the first large array; importing the library does not.

    Returns:
      True if it was done; False where the C library is not glibc, and nothing changes.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        settings = (
            (-4, 0),  # M_MMAP_MAX: no array in a mapping of its own
            (-1, -1),  # M_TRIM_THRESHOLD: never shrink the heap
            (-2, 64 * 2**20),  # M_TOP_PAD: grow it in large pieces
            (-8, 1),  # M_ARENA_MAX: one heap, so that threads reuse each other's memory
        )
        return all([libc.mallopt(option, value) == 1 for option, value in settings])
    except (OSError, AttributeError):
        return False


def host_map(fn: Callable[[T], R], items: Sequence[T], workers: int | None = None) -> list[R]:
    """Apply `fn` to every item, side by side on the CPU's cores; in order elsewhere.

    Dense eigensolvers of a few hundred rows hardly gain from a second thread, so on the CPU backend
    two problems run side by side with one BLAS thread each. Accelerators get one at a time.

    Args:
      fn: called with one item; its result is waited for.
      items: the work.
      workers: number of threads; by default the cores this process may use.

    Returns:
      The results, in the order of the items.
    """
    if not is_cpu():
        return [jax.block_until_ready(fn(item)) for item in items]
    workers = workers or min(len(items), cpu_cores())
    if workers < 2:
        return [jax.block_until_ready(fn(item)) for item in items]
    with threadpool_limits(1), ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda item: jax.block_until_ready(fn(item)), items))
