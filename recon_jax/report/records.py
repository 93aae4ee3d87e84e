"""What a run leaves behind: its workdir, its cached steps, and where its numbers come from.

Files appear whole or not at all (written beside and renamed), and a cached step carries the SHA-256
of its content, so a killed run resumes with what was finished and a damaged file is computed again.
In a run of several processes all call these functions, and process 0 alone touches the disk.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging

from recon_jax import parallel
from recon_jax.files import read_arrays, write_arrays, write_bytes


def prepare_workdir(workdir: str | os.PathLike) -> Path:
    """Create the workdir and its folders, and make sure that it can be written.

    Args:
      workdir: of the run.

    Raises:
      ValueError: if it cannot be created or written, with the reason and the way out.
    """
    return parallel.from_main(lambda: _prepare(Path(workdir).expanduser()))


def _prepare(path: Path) -> Path:
    try:
        for folder in (path, path / "tables", path / "figures", path / "cache"):
            folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"\0" * 4096)
    except OSError as error:
        raise ValueError(
            f"workdir {path} cannot be written ({error.strerror}); "
            "choose another with --workdir=DIR"
        ) from error
    return path


def _plain(value: Any) -> Any:
    """Content that JSON can hold: arrays become lists, and NaN, which JSON lacks, null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; arrays become lists, and numbers that are not finite null.

    Args:
      path: of the file.
      content: numbers, strings, arrays, lists and dicts of them.
    """
    text = json.dumps(_plain(content), indent=2, allow_nan=False)
    if parallel.is_main():
        write_bytes(path, (text + "\n").encode())


def append_jsonl(path: Path, record: Mapping[str, Any]) -> None:
    """Append one record to a metrics file, one JSON object a line.

    Args:
      path: of the file, which is created where it is missing.
      record: what `write_json` can write.
    """
    if not parallel.is_main():
        return
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(dict(record)) + "\n")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write a metrics file whole, so that a resumed run repeats no record.

    Args:
      path: of the file.
      records: what `write_json` can write, one a line.
    """
    lines = [json.dumps(_plain(record), allow_nan=False) + "\n" for record in records]
    if parallel.is_main():
        write_bytes(path, "".join(lines).encode())


def digest(content: Any) -> str:
    """Short SHA-256 of anything JSON can hold, independent of the order of keys.

    Args:
      content: numbers, strings, lists and dicts.
    """
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _load(path: Path) -> dict[str, np.ndarray] | None:
    try:
        return read_arrays(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        logging.warning("%s; computing it again", error)
        return None


def cached(
    folder: Path, name: str, key: Any, compute: Callable[[], Mapping[str, Any]]
) -> dict[str, np.ndarray]:
    """Arrays of one step of a run, computed once for each key.

    Args:
      folder: where to keep it.
      name: of the step, for the file name.
      key: everything the result depends on, as JSON content; another key is another file.
      compute: returns a mapping of names to arrays; called in every process or in none.

    Returns:
      The arrays, from the file if it is there and undamaged.
    """
    path = folder / f"{name}-{digest(key)}.npz"
    # Process 0 decides: were others to compute what it has, they would wait for it for ever.
    arrays = parallel.from_main(lambda: _load(path))
    if arrays is not None:
        return arrays
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    if parallel.is_main():
        folder.mkdir(parents=True, exist_ok=True)
        write_arrays(path, arrays)
    return arrays


def _git_revision() -> str:
    folder = Path(__file__).parent
    try:
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
        run = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip()


def provenance() -> dict[str, Any]:
    """Versions, git revision and device: what a number needs beside it to be believed."""
    packages = ("recon-jax", "jax", "jaxlib", "numpy", "scipy")
    versions = {}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    devices = jax.devices()
    return {
        "versions": versions,
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "device": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
        "cpu_cores": parallel.cpu_cores(),
        "machine": f"{platform.system()} {platform.machine()}",
    }
