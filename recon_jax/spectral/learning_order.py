"""In which order modes were learned, against the order that gradient flow predicts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats


class Agreement(NamedTuple):
    """Predicted against observed learning times.

    Attributes:
      num_modes: how many modes are compared.
      num_learned: how many of them were learned.
      rank_correlation: Spearman's, over the modes that were learned; NaN for fewer than three.
      rank_correlation_all: over all modes, those never learned tied in the last place.
      attainable: what that would be had as many been learned in exactly the predicted order.
      scale: median of observed / predicted over the modes that were learned; NaN without any.
      exponent: slope of log observed on log predicted time, the median of those between any two
        modes (Theil & Sen); gradient flow has 1. NaN for fewer than three modes.
    """

    num_modes: int
    num_learned: int
    rank_correlation: float
    rank_correlation_all: float
    attainable: float
    scale: float
    exponent: float


def crossing_times(
    times: Float[np.ndarray, " t"], curves: Float[np.ndarray, "_ *d"], level: float
) -> Float[np.ndarray, "*d"]:
    """First time at which each curve reaches a level, linearly interpolated.

    Args:
      times: ascending (T,).
      curves: values at these times (T,) or (T, D).
      level: to reach from below; above it from the start counts as the first time.

    Returns:
      () or (D,) float64; infinite where the level is never reached, or a curve holds NaN until the
      end.

    Raises:
      ValueError: if the times do not ascend or are not one a row.
    """
    times, curves = np.asarray(times, np.float64), np.asarray(curves, np.float64)
    if len(times) != len(curves) or not len(times) or np.any(np.diff(times) <= 0):
        raise ValueError(f"times must ascend, one for each of {len(curves)} rows, got {times}")
    reached = curves >= level
    after = np.argmax(reached, axis=0)
    before = np.maximum(after - 1, 0)

    def at(index):
        return np.take_along_axis(curves, index[None], 0)[0]

    low, high = at(before), at(after)
    # Where before = after the first time itself is meant.
    rise = np.where(high > low, high - low, 1.0)
    share = np.where(after > before, (level - low) / rise, 0.0)
    found = times[before] + share * (times[after] - times[before])
    return np.where(reached.any(axis=0), found, np.inf)


def order_agreement(
    predicted: Float[np.ndarray, " d"], observed: Float[np.ndarray, " _"]
) -> Agreement:
    """Do modes come in the predicted order?

    Args:
      predicted: learning times (D,) in any unit, as of `learning_times`; modes with an infinite one
        have no variance and are left out.
      observed: learning times (D,) in any other unit, as of `crossing_times`; infinite for never.

    Returns:
      The Agreement.

    Raises:
      ValueError: if the lengths differ.
    """
    predicted, observed = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    if predicted.shape != observed.shape:
        raise ValueError(f"{len(predicted)} predicted and {len(observed)} observed times")
    compared = np.isfinite(predicted)
    predicted, observed = predicted[compared], observed[compared]
    learned = np.isfinite(observed)
    x, y = predicted[learned], observed[learned]
    positive = y > 0
    best = np.where(stats.rankdata(predicted) <= learned.sum(), predicted, np.inf)
    return Agreement(
        num_modes=len(predicted),
        num_learned=int(learned.sum()),
        rank_correlation=_spearman(x, y),
        rank_correlation_all=_spearman(predicted, observed),
        attainable=_spearman(predicted, best),
        scale=float(np.median(y / x)) if len(x) else float("nan"),
        exponent=_slope(np.log(x[positive]), np.log(y[positive])),
    )


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 3 or np.all(x == x[0]) or np.all(y == y[0]):
        return float("nan")
    # Ranks first: infinite times are tied and last.
    return float(stats.spearmanr(stats.rankdata(x), stats.rankdata(y)).statistic)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    if len(x) < 3 or np.all(x == x[0]):
        return float("nan")
    return float(stats.theilslopes(y, x).slope)
