"""Matrices of features, one row a point: what every measure of them asks for."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def check_features(features: Any, name: str = "features") -> None:
    """Raise ValueError unless `features` is a non-empty float matrix of finite numbers."""
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(
            f"{name} must be a non-empty matrix (N, D), got shape {features.shape}; flatten what "
            "follows the first axis"
        )
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(f"{name} must be floats, got {features.dtype}; use {name}.astype('f4')")
    if isinstance(features, jax.core.Tracer):
        return
    bad = np.flatnonzero(~np.isfinite(np.asarray(features)).all(1))
    if bad.size:
        raise ValueError(
            f"{bad.size} row(s) of {name} hold NaN or infinite entries, the first is row {bad[0]}; "
            "remove or repair them"
        )


def unit_rows(rows: Array) -> Array:
    """Rows of length 1; zero rows stay zero. Scaled first, so that squares cannot overflow."""
    largest = jnp.abs(rows).max(1, keepdims=True)
    rows = rows / jnp.where(largest == 0, 1, largest)
    norm = jnp.linalg.norm(rows, axis=1, keepdims=True)
    return rows / jnp.where(norm == 0, 1, norm)


def scaled_by_power_of_two(rows: Array) -> Array:
    """All entries times the power of two that brings the largest into [2, 4); zeros stay.

    Nothing is rounded, and squares of entries and of their differences cannot overflow.
    """
    largest = jnp.abs(rows).max()
    mantissa = jnp.frexp(jnp.where(largest == 0, 1, largest))[0]
    # Exact, unlike ldexp at the ends of the range; a larger power has no normal reciprocal.
    power = largest / (4 * mantissa)
    return rows / jnp.maximum(power, jnp.finfo(rows.dtype).tiny)
