"""Speed of streaming over devices: eight simulated ones against one, on the same cores."""

from __future__ import annotations

import functools
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmark_job import Job, Measured
from recon_jax import parallel, spectral

BATCH = 4096
KEPT, RANK = 10, 256


@functools.cache
def _images(count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size), np.uint8)
    return pixels, np.arange(count, dtype=np.int32) % KEPT


def _batches(count: int, size: int):
    pixels, labels = _images(count, size)
    for start in range(0, count, BATCH):
        yield pixels[start : start + BATCH], labels[start : start + BATCH]


def stream_moments(count: int, size: int) -> None:
    """Stream images to moments on the devices of this process."""
    spectral.stream_moments(_batches(count, size), KEPT, dtype=jnp.float32, engine="devices")


def stream_sketch(count: int, size: int) -> None:
    """Stream images to a sketch on the devices of this process."""
    rank = min(RANK, size // 2)
    batches = functools.partial(_batches, count, size)
    spectral.stream_sketch(batches, KEPT, rank, key=jax.random.key(0), dtype=jnp.float32)


def _start(devices: int) -> None:
    jax.config.update("jax_num_cpu_devices", devices)
    parallel.tune_allocator()


def _seconds(work: Callable[[int, int], None], count: int, size: int) -> float:
    _images(count, size)
    start = time.perf_counter()
    work(count, size)
    return time.perf_counter() - start


def devices_job(smoke: bool, work: Callable[[int, int], None], what: str) -> Job:
    """The same stream in two processes, which wait for their turns."""
    count, size = (2 * BATCH, 64) if smoke else (12 * BATCH, 3072)
    # A process has as many simulated devices as it started with.
    spawn = multiprocessing.get_context("spawn")
    pools = {
        devices: ProcessPoolExecutor(1, spawn, initializer=_start, initargs=(devices,))
        for devices in (1, 8)
    }

    def on(devices: int) -> Callable[[], Measured]:
        return lambda: Measured(pools[devices].submit(_seconds, work, count, size).result())

    return Job(
        f"stream {count:,} uint8 images to {what} on 8 simulated devices, D={size}, batch {BATCH}",
        on(8),
        {"the same on 1 device": on(1)},
        1.15,
        warm_peers=True,
    )


JOBS = {
    "devices-moments": functools.partial(devices_job, work=stream_moments, what="moments"),
    "devices-sketch": functools.partial(devices_job, work=stream_sketch, what="a sketch"),
}
