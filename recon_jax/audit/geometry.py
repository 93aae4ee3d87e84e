"""How many directions features fill: ranks and intrinsic dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from recon_jax import data, geometry
from recon_jax.audit.intervals import over_seeds, undefined
from recon_jax.audit.records import Geometry

MOST_IMAGES = 1000
NEIGHBORS = 16


def measure_geometry(
    features: Float[np.ndarray, "n k"], seeds: Sequence[int], constant: bool
) -> Geometry:
    """Ranks and intrinsic dimensions of features, over random halves of the images.

    Each seed draws N / 2 images without replacement, at most 1,000: estimates of rank and dimension
    grow with the number of images, so it is the same for all encoders, and resampling with
    replacement would make duplicates, which have no dimension.

    Args:
      features: of the training images (N, K).
      seeds: one draw each.
      constant: whether they are the same for all images; then nothing is measured.

    Returns:
      The Geometry, with the standard deviation over draws.
    """
    if constant:
        return Geometry(*[undefined("the features are the same for all images")] * 4)
    measured, notes = [], [""] * len(Geometry._fields)
    for seed in seeds:
        order = data.epoch_order(len(features), seed=seed, epoch=0)
        values = _of_draw(features[order[: min(MOST_IMAGES, len(features) // 2)]])
        measured.append([value for value, _ in values])
        notes = [old or new for old, (_, new) in zip(notes, values, strict=True)]
    columns = np.array(measured).T
    return Geometry(*(over_seeds(*column) for column in zip(columns, notes, strict=True)))


def _of_draw(rows: np.ndarray) -> list[tuple[float, str]]:
    """Measures of some rows, with notes on those that have none."""
    different = np.unique(rows, axis=0)
    if len(different) < 2:
        return [(np.nan, "the features of a draw are the same for all its images")] * 4
    values = _singular_values(rows).astype(rows.dtype)
    neighbors = min(NEIGHBORS, len(rows) - 1)
    return [
        (float(geometry.effective_rank(values)), ""),
        (float(geometry.numerical_rank(values)), ""),
        # Duplicates have no second neighbour at a positive distance.
        _attempt(different, method="two_nn"),
        _attempt(rows, method="local_pca", num_neighbors=neighbors),
    ]


def _singular_values(rows: np.ndarray) -> np.ndarray:
    """Of the centred rows, in float64, where squares of what counts here lose nothing."""
    centred = rows - rows.mean(0, dtype=np.float64)
    centred = centred / np.abs(centred).max()
    if centred.shape[0] < centred.shape[1]:
        centred = centred.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(centred.T @ centred)[::-1], 0))


def _attempt(rows: np.ndarray, **options) -> tuple[float, str]:
    try:
        return float(geometry.intrinsic_dimension(rows, **options)), ""
    except ValueError as error:
        return np.nan, str(error)
