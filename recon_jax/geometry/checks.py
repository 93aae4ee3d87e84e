"""Refusals of bad input, made before any compilation; values are checked outside jit only."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from recon_jax.checks import as_finite_floats, is_concrete
from recon_jax.features import check_features


def as_stack(name: str, array: ArrayLike, axes: str) -> Array:
    """`as_finite_floats` of one matrix or a stack of them, with the names of the last axes."""
    array = as_finite_floats(name, array)
    if array.ndim < 2:
        raise ValueError(f"{name} must have shape (..., {axes}), got {array.shape}")
    return array


def as_features(features: ArrayLike, name: str = "features") -> Array:
    """Rows (N, D) as float32, or float64 if they are; ValueError unless they differ."""
    features = jnp.asarray(features)
    check_features(features, name)
    if is_concrete(features) and _is_constant(np.asarray(features)):
        raise ValueError(
            f"{name} are constant: all {len(features)} rows are the same point, which has no "
            "geometry; look for a collapsed network, or a layer without input"
        )
    return features.astype(jnp.promote_types(features.dtype, jnp.float32))


def _is_constant(rows: np.ndarray) -> bool:
    # The last row mostly settles it without a pass over all.
    return bool((rows[-1] == rows[0]).all() and (rows == rows[:1]).all())


def check_nonzero(name: str, array: Array, way_out: str) -> None:
    """Raise ValueError if a matrix of the stack is zero throughout. Skipped inside jit."""
    if not is_concrete(array):
        return
    zero = ~np.asarray(array).any((-2, -1))
    if zero.any():
        raise ValueError(f"{int(zero.sum())} of {zero.size} {name} are zero throughout; {way_out}")
