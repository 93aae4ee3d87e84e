"""Moments in files: one file for each pass over images, or share of one, and their union.

A file holds the statistics in float64 and, as JSON, what they are of. It carries the SHA-256 of its
content and appears whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from recon_jax import parallel
from recon_jax.files import read_arrays, write_arrays
from recon_jax.identity import identity_differences
from recon_jax.spectral.moments import Moments, merge_moments

DONE = "batches_done"

# What may differ between the shares of one dataset.
_OWN = ("held", "batches", DONE, "batch_size", "dtype")


def on_host(moments: Moments) -> Moments:
    """The statistics as NumPy arrays, in float64 whatever JAX computes in."""
    floats = [np.asarray(leaf, np.float64) for leaf in moments[1:4]]
    counts = [np.asarray(moments.count, np.int64), np.asarray(moments.class_counts, np.int64)]
    return Moments(counts[0], *floats, counts[1])


def on_device(moments: Moments, dtype: DTypeLike | None = None) -> Moments:
    """The statistics as JAX arrays; in JAX's default float if `dtype` is None."""
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    floats = [jnp.asarray(leaf, dtype) for leaf in moments[1:4]]
    counts = [jnp.asarray(moments.count, jnp.int32), jnp.asarray(moments.class_counts, jnp.int32)]
    return Moments(counts[0], *floats, counts[1])


def write_moments(path: Path, moments: Moments, about: Mapping[str, Any]) -> None:
    """Write a file from this process."""
    text = json.dumps(dict(about), sort_keys=True, allow_nan=False)
    write_arrays(path, {**on_host(moments)._asdict(), "about": np.array(text)})


def read_moments(path: Path) -> tuple[Moments, dict[str, Any]]:
    """Read a file in this process: NumPy arrays, and what they are of.

    Raises:
      OSError: it cannot be read.
      ValueError: it is damaged, or holds something else.
    """
    arrays = read_arrays(path)
    if set(arrays) != {*Moments._fields, "about"}:
        raise ValueError(f"{path} holds no moments, but {', '.join(sorted(arrays))}")
    about = json.loads(arrays.pop("about").item())
    return Moments(**arrays), about


def save_moments(
    path: str | os.PathLike, moments: Moments, about: Mapping[str, Any] | None = None
) -> None:
    """Save statistics, in float64, with what they are of. All processes call it; process 0 writes.

    Args:
      path: of the file, such as "moments.npz"; its folder must exist.
      moments: the statistics.
      about: JSON content: source, units and whatever else a reader must know. `held` (a list of
        share numbers) and `shares` (how many there are) tell `merge_saved` which part it is.

    Raises:
      OSError: it cannot be written.
    """
    parallel.from_main(lambda: write_moments(Path(path), moments, about or {}))


def load_moments(
    path: str | os.PathLike, *, dtype: DTypeLike | None = None
) -> tuple[Moments, dict[str, Any]]:
    """Load what `save_moments`, or a pass of `resume_moments` that has ended, left.

    Args:
      path: of the file.
      dtype: of the result; JAX's default float if None.

    Returns:
      The Moments, and what they are of.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it is damaged, holds something else, or the pass that writes it has not ended.
    """
    moments, about = parallel.from_main(lambda: _read_finished(Path(path)))
    return on_device(moments, dtype), about


def _read_finished(path: Path) -> tuple[Moments, dict[str, Any]]:
    moments, about = read_moments(path)
    done, of = about.get(DONE, 0), about.get("batches", 0)
    if done < of:
        raise ValueError(
            f"{path} holds {done} of {of} batches: the pass that writes it has not ended; "
            "run its command again to go on"
        )
    return moments, about


def merge_saved(paths: Sequence[str | os.PathLike]) -> tuple[Moments, dict[str, Any]]:
    """The statistics of disjoint parts that were saved by separate jobs, as one.

    Args:
      paths: of the files, one or more, in any order.

    Returns:
      The Moments as float64 NumPy arrays, and what they are of: as the files say, with the shares
      of all of them under `held`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: a file cannot be used (see `load_moments`), two files are of different data or
        units, or hold the same share.
    """
    if not paths:
        raise ValueError("there is no file to merge")
    return parallel.from_main(lambda: _merge([Path(path) for path in paths]))


def _merge(paths: Sequence[Path]) -> tuple[Moments, dict[str, Any]]:
    total, held = None, {}
    for path in paths:
        moments, about = _read_finished(path)
        common = {name: value for name, value in about.items() if name not in _OWN}
        if total is None:
            total, first, shapes = moments, common, moments.cross.shape
        else:
            _require_same_data(paths[0], first, shapes, path, common, moments.cross.shape)
            total = merge_moments(total, moments)
        # Without a number a file is a whole of its own; given twice it would count twice.
        for share in about.get("held", [str(path.resolve())]):
            if share in held:
                raise ValueError(f"{held[share]} and {path} both hold share {share}; give it once")
            held[share] = path
    numbered = sorted(share for share in held if isinstance(share, int))
    return total, {**first, "held": numbered}


def _require_same_data(first_path, first, first_shape, path, about, shape) -> None:
    if shape != first_shape:
        raise ValueError(
            f"{first_path} and {path} cannot be merged: they hold {first_shape} and {shape} "
            "(pixels, classes)"
        )
    found = identity_differences(first, about)
    if found:
        raise ValueError(
            f"{first_path} and {path} cannot be merged, they are of different data: "
            + "; ".join(found).replace("stored ", "").replace("now ", "and ")
        )


def missing_shares(about: Mapping[str, Any]) -> list[int]:
    """Numbers of the shares that a file lacks to be the whole of its dataset.

    Args:
      about: of `load_moments` or `merge_saved`.
    """
    held = about.get("held", [])
    return [share for share in range(about.get("shares", 1)) if share not in held] if held else []
