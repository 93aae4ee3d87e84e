"""The folder of a run: writable, with room to save, and used by one live run at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from absl import logging

LOCK = ".lock"


def require_writable(workdir: str | os.PathLike, min_free_bytes: int = 0) -> Path:
    """Create a workdir and make sure, before training starts, that it can be written.

    Args:
      workdir: created with its parents if missing.
      min_free_bytes: how much must be free on its disk.

    Returns:
      Its path.

    Raises:
      ValueError: it cannot be created or written, or the disk is too full; with the way out.
    """
    path = Path(workdir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0" * 4096)
        free = shutil.disk_usage(path).free
    except OSError as error:
        raise ValueError(
            f"workdir {path} cannot be written ({error.strerror}); choose another"
        ) from error
    if free < min_free_bytes:
        raise ValueError(
            f"workdir {path} has {free / 2**20:.0f} MiB free, and the checkpoints need "
            f"{min_free_bytes / 2**20:.0f} MiB; make room, or choose another"
        )
    return path


@contextlib.contextmanager
def lock_workdir(workdir: str | os.PathLike) -> Iterator[None]:
    """Hold a workdir for this run alone, until the block is left or the process ends in any way.

    Args:
      workdir: an existing folder.

    Raises:
      ValueError: another live run holds it; names that run's process and host.
    """
    path = Path(workdir) / LOCK
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ValueError(
                f"workdir {workdir} is in use by another live run ({owner}); wait for it, stop it, "
                "or choose another workdir"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            logging.warning("%s: this file system has no locks; start one run at a time", workdir)
        # The file stays when the run ends: to remove it would let two runs lock two files.
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
