"""Metrics as sums that merge: {name: (total, weight)}, with the mean total / weight.

Totals and weights add up, so any split of the images over batches, devices and micro-batches gives
the same mean, which a mean of means does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Metrics = Mapping[str, tuple[Any, Any]]


def merge_metrics(first: Metrics, second: Metrics) -> dict[str, tuple[Any, Any]]:
    """Sum of two metrics: totals and weights add up. {} is the neutral element.

    Args:
      first: {name: (total, weight)}.
      second: the same; a name that only one of them has is kept.
    """
    merged = dict(first)
    for name, (total, weight) in second.items():
        if name in merged:
            total, weight = merged[name][0] + total, merged[name][1] + weight
        merged[name] = (total, weight)
    return merged


def compute_metrics(metrics: Metrics) -> dict[str, float]:
    """Means of merged metrics: total / weight, NaN where the weight is 0. For use outside jit.

    Args:
      metrics: name to (total, weight).
    """
    return {
        name: float(total) / float(weight) if float(weight) else float("nan")
        for name, (total, weight) in metrics.items()
    }
