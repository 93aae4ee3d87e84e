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
    """Float64 sums about a pilot image: second (D, D), class_sums (D, C), class_counts (C,).

    Of `second` only the upper triangle is filled.
    """

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


def accumulate(triples: Iterable[tuple], num_classes: int, double: bool = False) -> HostSums | None:
    """Sum (images, labels, mask) triples of NumPy arrays, already checked, about a pilot image.

    With `double`, images that are not 8-bit are multiplied in float64 (`dsyrk`) throughout.

    Returns:
      The sums; None if there is no image.
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
            work = np.float64 if double else np.float32
            update, gemm = (blas.dsyrk, blas.dgemm) if double else (blas.ssyrk, blas.sgemm)
            pilot = _pilot(rows).astype(work)
            second = np.zeros((size, size), order="F")
            held_second = np.zeros((size, size), work, order="F")
            buffer = np.empty((_ROWS, size), work)
            class_sums = np.zeros((size, num_classes))
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
            # SciPy's BLAS here too: NumPy brings a BLAS of its own, whose idle threads would spin
            # on the cores that the rank-k update needs.
            one_hot = np.eye(num_classes, dtype=work)[labels[start : start + len(block)]]
            class_sums += gemm(1.0, block.T, one_hot)
        class_counts += np.bincount(labels, minlength=num_classes)
    if pilot is None:
        return None
    if held:
        second += held_second
    return HostSums(int(class_counts.sum()), pilot.astype(float), second, class_sums, class_counts)


def centred_scatter(sums: HostSums, shift: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """S = second - N shift shift^T, mirrored to a full matrix, in one pass of row panels."""
    size = len(shift)
    scatter = np.empty((size, size), dtype)
    for start in range(0, size, 256):
        rows = slice(start, start + 256)
        panel = sums.second[rows, start:] - (sums.count * shift[rows, None]) * shift[None, start:]
        # The diagonal block comes with its lower half unfilled.
        block = np.triu(panel[:, : len(panel)])
        panel[:, : len(panel)] = block + np.triu(block, 1).T
        scatter[rows, start:] = panel
        scatter[start:, rows] = panel.T
    return scatter
