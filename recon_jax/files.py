"""Files that are whole at every moment, whatever interrupts the writing."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_DIGEST_BYTES = 64  # a SHA-256 in hexadecimal, before what it is of


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once it is complete and on disk."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: readers see the old content or the new, never a part."""
    with _replacing(path) as file:
        file.write(content)


class _Hashed:
    """Passes on what is written and hashes it, so that large arrays are never held twice."""

    def __init__(self, file: BinaryIO):
        self._file, self.sha256 = file, hashlib.sha256()

    def write(self, content) -> int:
        self.sha256.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()

    def read(self, size: int = -1) -> bytes:
        # NumPy takes nothing for a file that cannot do this.
        raise OSError("only for writing")


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays atomically, as an npz file behind the SHA-256 of its content.

    Args:
      path: of the file; its folder must exist.
      arrays: names and what NumPy can make arrays of; no Python objects.
    """
    with _replacing(path) as file:
        file.write(b"0" * _DIGEST_BYTES)
        hashed = _Hashed(file)
        np.savez(hashed, allow_pickle=False, **arrays)
        file.seek(0)
        file.write(hashed.sha256.hexdigest().encode())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the content is not what was written.
    """
    with open(path, "rb") as file:
        checksum = file.read(_DIGEST_BYTES)
        if hashlib.file_digest(file, "sha256").hexdigest().encode() != checksum:
            raise ValueError(f"{path} is damaged: its SHA-256 does not fit")
        file.seek(_DIGEST_BYTES)
        with np.load(file) as arrays:
            return {name: arrays[name] for name in arrays.files}
