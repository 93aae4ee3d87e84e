"""metrics.jsonl: one JSON line a log point, the same after any number of interruptions."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import logging

from recon_jax.files import write_bytes


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The records of a metrics file; [] without a file. Lines that are no records are left out.

    Args:
      path: of the file that `fit` writes.
    """
    if not Path(path).exists():
        return []
    return [json.loads(line) for line in _whole_lines(Path(path).read_bytes())]


def _whole_lines(content: bytes) -> list[bytes]:
    lines = []
    # What follows the last line break was being written when the run was killed.
    for line in content.split(b"\n")[:-1]:
        try:
            int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            logging.warning("left out a line that is no metrics record: %r", line[:80])
        else:
            lines.append(line + b"\n")
    return lines


def truncate_metrics(path: str | os.PathLike, step: int) -> None:
    """Drop the records after a step, which a resumed run writes again, and half-written lines.

    Args:
      path: of the metrics file; nothing happens if it does not exist.
      step: the last to keep.
    """
    path = Path(path)
    if not path.exists():
        return
    content = path.read_bytes()
    kept = b"".join(line for line in _whole_lines(content) if json.loads(line)["step"] <= step)
    if kept == content:
        return
    # A second interruption finds the old content or the new.
    write_bytes(path, kept)


@contextlib.contextmanager
def open_metrics(
    path: str | os.PathLike, step: int
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Continue a metrics file after a step.

    Args:
      path: of the file.
      step: the last whose records to keep.

    Returns:
      A context manager that gives write(record), which puts one line on the disk. Numbers that are
      not finite become null.
    """
    truncate_metrics(path, step)
    # Unbuffered: a buffer is written again when the file is closed, and fails again.
    with open(path, "ab", buffering=0) as file:

        def write(record: Mapping[str, Any]) -> None:
            plain = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in record.items()
            }
            line = (json.dumps(plain, allow_nan=False) + "\n").encode()
            try:
                # What a full disk takes only in part is dropped when the run resumes.
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError as error:
                raise OSError(
                    f"{path} could not be written at step {record['step']} ({error.strerror}); "
                    "make room, and run the same command again to resume"
                ) from error

        yield write
