"""Progress of a long step: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

from recon_jax import parallel

T = TypeVar("T")


def progress(
    items: Iterable[T], label: str, total: int | None = None, *, every: float = 5.0
) -> Iterator[T]:
    """Yield the items while showing percent, rate and time left on stderr.

    Args:
      items: what to go through.
      label: what is being done.
      total: number of items; len(items) if it has one.
      every: seconds between two lines where stderr is no terminal.
    """
    if not parallel.is_main():
        yield from items
        return
    total = len(items) if total is None and hasattr(items, "__len__") else total
    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False)
        return
    start = last = time.monotonic()
    count = 0
    for count, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= every:
            last = now
            line = tqdm.format_meter(count, total, now - start, ncols=0, prefix=label)
            print(line, file=sys.stderr, flush=True)
    line = tqdm.format_meter(count, total, time.monotonic() - start, ncols=0, prefix=label)
    print(line, file=sys.stderr, flush=True)
