"""Spectrum kept: how much of each pixel eigen-direction a linear read-out finds in features."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Integer

from recon_jax.audit.intervals import bootstrap, undefined
from recon_jax.audit.readout import ReadOut, read_out
from recon_jax.audit.records import SpectrumKept
from recon_jax.audit.subjects import Subjects
from recon_jax.spectral import split_by_variance

# Upper ends of the bands, as parts of the variance.
EDGES = (0.5, 0.75, 0.9, 0.99, 1.0)


def spectrum_kept(
    subjects: Subjects, fitted: ReadOut, counts: Integer[np.ndarray, "r t"]
) -> tuple[SpectrumKept, Float[np.ndarray, " d"]]:
    """Held-out R^2 of the pixels' eigen-directions, read linearly from features.

    R^2 = 1 - sum_n (z_n - p_n)^2 / sum_n z_n^2 over test images n, z the projection of the image
    minus the mean training image, p its ridge prediction (`read_out`); sums run over the directions
    of a band too. Bands are those of `spectral.split_by_variance` between `EDGES`.

    Args:
      subjects: the images.
      fitted: the features of these images.
      counts: resamples of the test images.

    Returns:
      The SpectrumKept and the R^2 of each direction (D',); NaN where test images do not vary.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337) for the eigen-directions in which
    reconstruction learns; the read-out from any features was defined for this library.
    """
    predicted = read_out(fitted, subjects.scores)
    targets = subjects.test_scores.astype(np.float64)
    errors, totals = np.square(targets - predicted), np.square(targets)
    names, kept, sizes, shares = [], [], [], []
    for name, rows in bands_of(subjects):
        names.append(name)
        sizes.append(rows.stop - rows.start)
        shares.append(float(subjects.variance[rows].sum()))
        kept.append(_r2(errors[:, rows], totals[:, rows], counts))
    spectrum = SpectrumKept(
        bands=tuple(names),
        directions=tuple(sizes),
        shares=tuple(shares),
        kept=tuple(kept),
        total=_r2(errors, totals, counts),
        excluded=subjects.moments.num_features - subjects.directions,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        return spectrum, 1 - errors.sum(0) / totals.sum(0)


def bands_of(subjects: Subjects) -> Iterator[tuple[str, slice]]:
    """Names and directions of the bands.

    Args:
      subjects: the images.
    """
    start, low = 0, 0.0
    for edge in EDGES:
        stop = subjects.directions
        if edge < 1:
            stop = min(stop, split_by_variance(subjects.spectrum, edge)[0].shape[1])
        yield f"{100 * low:g}-{100 * edge:g} %", slice(start, stop)
        start, low = stop, edge


def _r2(errors: np.ndarray, totals: np.ndarray, counts: np.ndarray):
    if not errors.shape[1]:
        return undefined("no eigen-direction lies within this band")
    columns = np.stack([errors.sum(1), totals.sum(1)], axis=1)
    return bootstrap(lambda error, total: 1 - error / total, columns, counts)
