"""What a job of the benchmark is, and how it is timed."""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import jax


class Job(NamedTuple):
    """A task done our way and the peer's way.

    Attributes:
      task: what is done.
      ours: does it.
      peers: name -> does the same.
      target: largest ratio of our time to the peer's that is promised.
      repeats: how often a round does it; the mean counts.
      warm_peers: the peers' first call is slower too, as PyTorch's, and is not counted.
    """

    task: str
    ours: Callable[[], Any]
    peers: dict[str, Callable[[], Any]]
    target: float
    repeats: int = 1
    warm_peers: bool = False


class Measured(NamedTuple):
    """Returned by a call of which only a part counts.

    Attributes:
      seconds: of that part.
    """

    seconds: float


def timed(call: Callable[[], Any], repeats: int = 1) -> float:
    """Seconds until the result is ready, or as many as the call itself says; mean of `repeats`."""
    start = time.perf_counter()
    for _ in range(repeats):
        result = jax.block_until_ready(call())
    if isinstance(result, Measured):
        return result.seconds
    return (time.perf_counter() - start) / repeats


def measure(name: str, job: Job, rounds: int) -> list[list[Any]]:
    """One row a peer: times interleaved, medians, ratio."""
    print(f"{name}: {job.task}", file=sys.stderr, flush=True)
    first = timed(job.ours)  # compiles; the peers have nothing to compile
    if job.warm_peers:
        for call in job.peers.values():
            call()
    ours, theirs = [], {peer: [] for peer in job.peers}
    for _ in range(rounds):
        ours.append(timed(job.ours, job.repeats))
        for peer, call in job.peers.items():
            theirs[peer].append(timed(call, job.repeats))
    seconds = statistics.median(ours)
    return [
        [
            job.task,
            peer,
            seconds,
            statistics.median(times),
            seconds / statistics.median(times),
            f"<= {job.target:g}",
            max(first - seconds, 0.0),
        ]
        for peer, times in theirs.items()
    ]


def in_fresh_process(fn: Callable[..., Any], *args: Any) -> Any:
    """The result of a module-level function in a new interpreter, which imports all anew."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(fn, *args).result()
