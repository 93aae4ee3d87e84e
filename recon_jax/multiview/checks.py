"""Refusals of bad input, made before any compilation; values are checked outside jit only."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from recon_jax.linalg import is_concrete


def as_floats(name: str, array: ArrayLike, ndim: int, axes: str) -> Array:
    """The array as float32, or float64 if it is; ValueError unless finite floats of `ndim` axes."""
    array = jnp.asarray(array)
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must have shape ({axes}) and not be empty, got {array.shape}")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be floats, got {array.dtype}; use {name}.astype('f4')")
    if is_concrete(array):
        bad = int((~np.isfinite(np.asarray(array))).sum())
        if bad:
            raise ValueError(f"{name} holds {bad} NaN or infinite entries out of {array.size}")
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def as_network_input(kernels: ArrayLike, patches: ArrayLike) -> tuple[Array, Array]:
    """Kernels (R, d) and patches (N, P, d) in one float dtype; ValueError unless d is the same."""
    kernels = as_floats("kernels", kernels, 2, "number of kernels, dim")
    patches = as_floats("patches", patches, 3, "number of images, patches, dim")
    if kernels.shape[1] != patches.shape[2]:
        raise ValueError(
            f"kernels of {kernels.shape[1]} entries cannot see patches of {patches.shape[2]}; the "
            "last axis of both is the dimension of a patch"
        )
    dtype = jnp.promote_types(kernels.dtype, patches.dtype)
    return kernels.astype(dtype), patches.astype(dtype)


def as_labels(labels: ArrayLike, count: int, num_classes: int) -> Array:
    """Labels (N,); ValueError unless they are integers in 0 .. k - 1, one an image."""
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or labels.shape != (count,):
        raise ValueError(
            f"labels must be integers, one for each of {count} images, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    if is_concrete(labels):
        # As NumPy's: inside jit, a constant of JAX would be traced by its own minimum.
        found = np.asarray(labels)
        low, high = int(found.min()), int(found.max())
        if low < 0 or high >= num_classes:
            raise ValueError(
                f"labels run from {low} to {high}; with num_classes={num_classes} they must lie in "
                f"0 .. {num_classes - 1}"
            )
    return labels


def check_count(name: str, value: Any, low: int, meaning: str) -> None:
    """Raise ValueError unless the value is an integer of at least `low`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < low:
        raise ValueError(f"{name}={value!r} must be an integer of at least {low}: {meaning}")


def check_positive(name: str, value: ArrayLike, meaning: str) -> None:
    """Raise ValueError unless all values are finite and > 0. Skipped inside jit."""
    if not is_concrete(value):
        return
    found = np.asarray(value)
    bad = found[~((found > 0) & (found < math.inf))]
    if bad.size:
        raise ValueError(f"{name}={bad.flat[0]} must be a finite number > 0: {meaning}")


def check_fraction(name: str, value: ArrayLike, meaning: str) -> None:
    """Raise ValueError unless all values lie in [0, 1]. Skipped inside jit."""
    if not is_concrete(value):
        return
    found = np.asarray(value)
    bad = found[~((found >= 0) & (found <= 1))]
    if bad.size:
        raise ValueError(f"{name}={bad.flat[0]} must lie in [0, 1]: {meaning}")


def check_keep(keep: ArrayLike) -> None:
    """Raise ValueError unless all probabilities of keeping a patch lie in (0, 1]."""
    if not is_concrete(keep):
        return
    found = np.asarray(keep)
    bad = found[~((found > 0) & (found <= 1))]
    if bad.size:
        raise ValueError(
            f"keep={bad.flat[0]} must lie in (0, 1]: the probability that a patch stays visible to "
            "the student; a drop ratio r is keep = 1 - r, and 1 masks nothing"
        )


def as_power(power: Any) -> int | float:
    """The power q, as an int if it is whole; ValueError unless it is a finite number >= 1."""
    if not isinstance(power, Real) or isinstance(power, bool) or not 1 <= power < math.inf:
        raise ValueError(
            f"power={power!r} must be a finite number of at least 1, fixed before compilation: the "
            "power q of the rectifier near 0; the theory needs 3 or more, and 1 is the ReLU"
        )
    # Whole powers are products, which are much faster than pow.
    return int(power) if float(power).is_integer() else float(power)
