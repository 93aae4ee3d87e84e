"""Prepare the next batches in a background thread while the current one is used."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from recon_jax.checks import check_integer


def prefetch(
    batches: Iterable[Any], size: int = 2, transfer: Callable[[Any], Any] | None = None
) -> Iterator[Any]:
    """Yields the same batches in the same order, up to `size` of them prepared ahead.

    The thread starts with the first batch asked for. It ends when the batches do, and when the
    consumer stops: closing or dropping the iterator waits for the batch in preparation, then ends
    the thread.

    Args:
      batches: read in the background thread only; closed there at the end if it can be closed.
      size: how many batches to hold ready, at least 1.
      transfer: applied to each batch in the thread, such as `jax.device_put`.

    Returns:
      An iterator. An exception in `batches` or `transfer` is raised from it, in its place in the
      order.

    Raises:
      ValueError: `size` is below 1.
    """
    check_integer("size", size, 1)
    return _consume(batches, size, transfer)


def _consume(
    batches: Iterable[Any], size: int, transfer: Callable[[Any], Any] | None
) -> Iterator[Any]:
    places = threading.Semaphore(size)
    stop = threading.Event()
    ready: queue.SimpleQueue = queue.SimpleQueue()
    # A daemon, so that a read that hangs does not keep the interpreter from exiting.
    thread = threading.Thread(
        target=_produce, args=(batches, transfer, places, stop, ready), name="prefetch", daemon=True
    )
    thread.start()
    try:
        while True:
            batch, error, done = ready.get()
            if error is not None:
                raise error
            if done:
                return
            places.release()
            yield batch
    finally:
        stop.set()
        places.release()
        thread.join()


def _produce(
    batches: Iterable[Any],
    transfer: Callable[[Any], Any] | None,
    places: threading.Semaphore,
    stop: threading.Event,
    ready: queue.SimpleQueue,
) -> None:
    """Puts (batch, error, done) in the queue; the last one is either an error or done."""
    try:
        iterator = iter(batches)
        while True:
            places.acquire()
            if stop.is_set():
                break
            try:
                batch = next(iterator)
            except StopIteration:
                break
            ready.put((batch if transfer is None else transfer(batch), None, False))
        if hasattr(iterator, "close"):
            iterator.close()
    # Whatever it is: a consumer that is never told would wait for ever.
    except BaseException as error:
        ready.put((None, error, True))
    else:
        ready.put((None, None, True))
