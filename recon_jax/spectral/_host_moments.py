"""Streamed second moments on the host's BLAS: the CPU engine behind `stream_moments`.

XLA has no symmetric rank-k update on the CPU, and the stream is at host level anyway, so one CPU
process accumulates with BLAS `ssyrk`, which does half of the work of a product.

8-bit images are accumulated exactly. Every product of (pixel - 128) is an integer, and float32 adds
integers exactly up to 2^24; by Cauchy-Schwarz every partial sum of every entry is bounded by the
largest diagonal entry, so it is enough to move the float32 block into the float64 total before a
diagonal entry could pass 2^24. The statistics of 8-bit images therefore do not depend on batch size
or order, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy.linalg import blas

_EXACT = 2.0**24 * 0.999  # the margin covers the rounding of the bound itself
_ROWS = 960  # rows converted to float32 at a time; 960 * 128^2 < 2^24, so each block is exact
_FLOAT_ROWS = 4096  # rows of non-integer images between two moves to float64


class HostSums(NamedTuple):
    """Float64 sums about a pilot image: second (D, D), class_sums (C, D), class_counts (C,)."""

    count: int
    pilot: np.ndarray
    second: np.ndarray
    class_sums: np.ndarray
    class_counts: np.ndarray


def _pilot(rows: np.ndarray) -> np.ndarray:
    """Image to subtract: a constant for 8-bit images, so that it does not depend on their order."""
    if rows.dtype == np.uint8:
        return np.full(rows.shape[1], 128, np.float32)
    return rows.mean(0)


def accumulate(triples: Iterable[tuple], num_classes: int, double: bool = False) -> HostSums:
    """Sum (images, labels, mask) triples of NumPy arrays, already checked, about a pilot image.

    With `double`, images that are not 8-bit are multiplied in float64 (`dsyrk`) throughout.
    """
    pilot = None
    class_counts = np.zeros(num_classes, np.int64)
    held = 0.0  # bound on the diagonal (8-bit) or number of rows (else) held in the float32 block
    for images, labels, mask in triples:
        rows = images.reshape(len(images), -1)
        if not mask.all():
            rows, labels = rows[mask], labels[mask]
        if not len(rows):
            continue
        if pilot is None:
            size = rows.shape[1]
            double = double and rows.dtype != np.uint8
            work, update = (np.float64, blas.dsyrk) if double else (np.float32, blas.ssyrk)
            pilot = _pilot(rows).astype(work)
            second = np.zeros((size, size), order="F")
            held_second = np.zeros((size, size), work, order="F")
            buffer = np.empty((_ROWS, size), work)
            class_sums = np.zeros((num_classes, size))
        for start in range(0, len(rows), _ROWS):
            part = rows[start : start + _ROWS]
            block = buffer[: len(part)]
            np.subtract(part, pilot, out=block, casting="unsafe")
            if rows.dtype == np.uint8:
                added, limit = float(np.einsum("ij,ij->j", block, block).max()), _EXACT
            else:
                added, limit = len(block), _FLOAT_ROWS
            if held and held + added > limit:
                second += held_second
                held = 0.0
            # beta = 0 overwrites what has just been moved into the total.
            held_second = update(1.0, block.T, beta=float(held > 0), c=held_second, overwrite_c=1)
            held += added
            one_hot = np.eye(num_classes, dtype=work)[labels[start : start + len(block)]]
            class_sums += one_hot.T @ block
        class_counts += np.bincount(labels, minlength=num_classes)
    if pilot is None:
        raise ValueError("no images were given: the source is empty or wholly masked")
    if held:
        second += held_second
    second += np.triu(second, 1).T  # ssyrk fills the upper triangle only
    return HostSums(int(class_counts.sum()), pilot.astype(float), second, class_sums, class_counts)
