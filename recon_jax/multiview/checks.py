"""Refusals of bad input, made before any compilation; values are checked outside jit only."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from recon_jax.checks import as_finite_floats, check_labels, check_numbers


def as_floats(name: str, array: ArrayLike, ndim: int, axes: str) -> Array:
    """`as_finite_floats`; ValueError unless the array has `ndim` axes, called `axes`."""
    array = jnp.asarray(array)
    if array.ndim != ndim or not array.size:
        raise ValueError(f"{name} must have shape ({axes}) and not be empty, got {array.shape}")
    return as_finite_floats(name, array)


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
    check_labels(labels, num_classes, count)
    return labels


def check_keep(keep: ArrayLike) -> None:
    """Raise ValueError unless all probabilities of keeping a patch lie in (0, 1]."""
    meaning = (
        "the probability that a patch stays visible to the student; a drop ratio r is keep = 1 - "
        "r, and 1 masks nothing"
    )
    check_numbers("keep", keep, "(0, 1]", meaning)


def as_power(power: Any) -> int | float:
    """The power q, as an int if it is whole; ValueError unless it is a finite number >= 1."""
    if not isinstance(power, Real) or isinstance(power, bool) or not 1 <= power < math.inf:
        raise ValueError(
            f"power={power!r} must be a finite number of at least 1, fixed before compilation: the "
            "power q of the rectifier near 0; the theory needs 3 or more, and 1 is the ReLU"
        )
    # Whole powers are products, which are much faster than pow.
    return int(power) if float(power).is_integer() else float(power)
