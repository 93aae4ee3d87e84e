"""Correlation of logarithms over few points, with jackknife intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats


class Correlation(NamedTuple):
    """Pearson correlation and least-squares line of logarithms.

    Attributes:
      r: correlation of log x and log y; NaN where it is undefined.
      low: lower end of its 95% interval; NaN where that is undefined.
      high: upper end.
      slope: b of y = a x^b.
      slope_low: lower end of its 95% interval.
      slope_high: upper end.
      factor: a.
    """

    r: float
    low: float
    high: float
    slope: float
    slope_low: float
    slope_high: float
    factor: float

    def describe(self) -> str:
        """The correlation and its interval."""
        return f"{self.r:+.2f}{_interval(self.low, self.high)}"

    def describe_slope(self) -> str:
        """The slope and its interval."""
        return f"{self.slope:.2f}{_interval(self.slope_low, self.slope_high)}"


def _interval(low: float, high: float) -> str:
    return "" if np.isnan(low) else f" ({low:+.2f} to {high:+.2f})"


def _fisher(r: float) -> float:
    # The correlation of points on a line is 1 up to rounding, and its z infinite.
    return float(np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12)))


def _statistics(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Fisher's z of the correlation, and the slope; NaN where either is undefined."""
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.full(2, np.nan)
    return np.array([_fisher(np.corrcoef(x, y)[0, 1]), np.polyfit(x, y, 1)[0]])


def correlate_logs(x: Float[np.ndarray, " n"], y: Float[np.ndarray, " n"]) -> Correlation:
    """Correlation of log x with log y, and the power law between them.

    Intervals are value ± t s, t of n - 1 degrees of freedom and s^2 = (n - 1) / n times the sum of
    squared deviations of the n values found without one point each; for the correlation on the
    scale of Fisher's z = artanh r. Points must be independent for that; with a handful of points
    they are rough.

    Args:
      x: of n points.
      y: likewise.

    Returns:
      The `Correlation`. All of it is NaN if a value has no finite logarithm, or all of x or all of
      y are the same, and the intervals are if that holds without one point or n < 4.
    """
    x, y, n = np.asarray(x, float), np.asarray(y, float), len(x)
    if n < 2 or not all(np.isfinite(v).all() and (v > 0).all() for v in (x, y)):
        return Correlation(*[float("nan")] * 7)
    x, y = np.log(x), np.log(y)
    z, slope = _statistics(x, y)
    half = np.full(2, np.nan)
    if n >= 4:
        without = np.stack([_statistics(np.delete(x, i), np.delete(y, i)) for i in range(n)])
        scatter = np.square(without - without.mean(0)).sum(0)
        half = stats.t.ppf(0.975, n - 1) * np.sqrt((n - 1) / n * scatter)
    return Correlation(
        r=float(np.tanh(z)),
        low=float(np.tanh(z - half[0])),
        high=float(np.tanh(z + half[0])),
        slope=float(slope),
        slope_low=float(slope - half[1]),
        slope_high=float(slope + half[1]),
        factor=float(np.exp(y.mean() - slope * x.mean())),
    )
