"""How far a run is, for people: on the terminal and in TensorBoard. None of it is a result."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
from tqdm import tqdm

from recon_jax import parallel

T = TypeVar("T")


def show_progress(
    batches: Iterable[T], start: int, total: int, *, every: float = 5.0
) -> Iterator[T]:
    """Yield the batches while showing percent, steps/s, images/s and time left on stderr.

    A bar on a terminal, elsewhere a line every few seconds.

    Args:
      batches: one a step; the leading axis of a batch's first leaf counts this process's images.
      start: steps done before.
      total: steps of the whole run.
      every: seconds between two lines.
    """
    if not parallel.is_main():
        yield from batches
        return
    begin = last = time.monotonic()
    images, done = 0, start
    terminal = sys.stderr.isatty()
    with tqdm(initial=start, total=total, unit="step", disable=not terminal, leave=False) as bar:
        for batch in batches:
            images += int(jax.tree.leaves(batch)[0].shape[0]) * parallel.process_count()
            yield batch
            done += 1
            now = time.monotonic()
            rate = f"{images / max(now - begin, 1e-9):.0f} images/s"
            if terminal:
                bar.set_postfix_str(rate, refresh=False)
                bar.update()
            elif now - last >= every or done == total:
                last = now
                line = tqdm.format_meter(
                    done, total, now - begin, initial=start, ncols=0, unit="step", postfix=rate
                )
                print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def open_board(
    folder: str | os.PathLike | None, step: int
) -> Iterator[Callable[[int, Mapping[str, Any]], None]]:
    """Write scalars for TensorBoard.

    Args:
      folder: for the event files; None writes nothing.
      step: a resumed run hides what an earlier one wrote after this step.

    Returns:
      A context manager that gives write(step, {name: number}).
    """
    if folder is None:
        yield lambda step, values: None
        return
    # Imported here: it takes seconds where PyTorch is installed.
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.summary import scalar

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    # Not its SummaryWriter: the thread that writes for it dies of a full disk or of a clock
    # that is set back by weeks, and training then waits for it for ever.
    with contextlib.closing(EventsWriter(str(path / "events"))) as file:

        def write_event(step: int, **what: Any) -> None:
            file.write_event(Event(wall_time=time.time(), step=step, **what))

        def write(step: int, values: Mapping[str, Any]) -> None:
            for name, value in values.items():
                write_event(step, summary=scalar(name, value))
            file.flush()

        write_event(step + 1, session_log=SessionLog(status=SessionLog.START))
        yield write
