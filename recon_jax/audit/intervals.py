"""Spread of a number: percentile bootstrap over test images, and standard deviation over seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float, Integer, Key

from recon_jax.audit.records import Estimate

LEVEL = 95.0


def resamples(key: Key[jax.Array, ""], count: int, number: int) -> Integer[np.ndarray, "r n"]:
    """How often each image is drawn in resamples of N images with replacement.

    Args:
      key: of the draws.
      count: N, at least 1.
      number: R resamples, at least 2.

    Returns:
      Counts (R, N); rows sum to N.

    Raises:
      ValueError: if a number is too small.
    """
    if count < 1 or number < 2:
        raise ValueError(
            f"{number} resamples of {count} images: 2 or more of at least 1 image are needed"
        )
    drawn = np.asarray(jax.random.randint(key, (number, count), 0, count))
    rows = np.arange(number)[:, None] * count
    return np.bincount((drawn + rows).ravel(), minlength=number * count).reshape(number, count)


def bootstrap(
    statistic: Callable[..., np.ndarray],
    columns: Float[np.ndarray, "n m"],
    counts: Integer[np.ndarray, "r n"],
    note: str = "",
) -> Estimate:
    """A function of sums over images, with its 95 % percentile interval over resampled images.

    Args:
      statistic: of M sums, each an array (...), to an array (...); such as
        lambda error, total: 1 - error / total.
      columns: what each image adds to the M sums (N, M).
      counts: from `resamples`. The same counts for two statistics pair their images.
      note: of the Estimate.

    Returns:
      The Estimate: value from all images once. Resamples in which the statistic is not finite are
      left out; if the value is not, or there are no others, there is no interval.

    Source: Efron 1979; Efron & Tibshirani 1993, section 13.3 (percentile interval).
    """
    columns = np.asarray(columns, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = float(statistic(*columns.sum(0)))
        drawn = np.asarray(statistic(*(counts @ columns).T), np.float64)
    drawn = drawn[np.isfinite(drawn)]
    if not math.isfinite(value) or not drawn.size:
        return Estimate(value, note=note or "not defined on these test images")
    tail = (100 - LEVEL) / 2
    low, high = (float(end) for end in np.percentile(drawn, [tail, 100 - tail]))
    return Estimate(value, low, high, "bootstrap", note)


def over_seeds(values: Sequence[float] | Float[np.ndarray, " s"], note: str = "") -> Estimate:
    """Mean over seeds, and the mean minus and plus their standard deviation (N - 1).

    Args:
      values: one a seed, at least one; those that are NaN are left out, and said in the note.
      note: of the Estimate.

    Returns:
      The Estimate; without spread if only one value is there, NaN if none.
    """
    values = np.asarray(values, np.float64)
    known = values[~np.isnan(values)]
    if known.size < values.size:
        lost = f"{values.size - known.size} of {values.size} seeds have no value"
        note = f"{lost}: {note}" if note else lost
    if not known.size:
        return undefined(note)
    mean = float(known.mean())
    if known.size < 2 or not math.isfinite(mean):
        return Estimate(mean, note=note)
    spread = float(known.std(ddof=1))
    return Estimate(mean, mean - spread, mean + spread, "seeds", note)


def undefined(note: str) -> Estimate:
    """No number, and why."""
    return Estimate(math.nan, note=note)
