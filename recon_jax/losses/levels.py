"""Pixels as whole numbers: the levels that discrete likelihoods give probabilities to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Shaped

from recon_jax.checks import check_indices, check_integer, is_concrete

MAX_LEVELS = 65536

# What float32 arithmetic on pixels may push them beyond 0 or 1.
_SLACK = 1e-6


def check_levels(levels: object) -> None:
    """Raise ValueError unless `levels`, how many there are, is an integer in 2 .. 65536."""
    meaning = "the number of values a pixel can take, 256 for 8 bits, 2 for binary images"
    check_integer("levels", levels, 2, meaning, high=MAX_LEVELS)


def check_values(values: ArrayLike, levels: int) -> Array:
    """The levels of pixels as an array; ValueError unless they are whole and in 0 .. L - 1.

    Args:
      values: levels of pixels, of an integer dtype; their range is checked outside jit only.
      levels: L.
    """
    dtype = jnp.result_type(values)
    if not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(
            f"levels of pixels must be whole numbers of an integer dtype, got {dtype}; "
            f"to_levels(images, {levels}) makes them from uint8 images or pixels in [0, 1]"
        )
    way_out = f"make them by to_levels(images, {levels}), or declare more levels"
    check_indices("levels of pixels", values, "levels", levels, way_out)
    return jnp.asarray(values)


def to_levels(images: Shaped[ArrayLike, "..."], levels: int) -> Int[Array, "..."]:
    """round(x (L - 1)), the level nearest to each pixel x in [0, 1]; a tie goes to the even level.

    uint8 images stand for x = image / 255 and are rounded in whole numbers, so L = 256 leaves
    them as they are.

    Args:
      images: uint8, or floats in [0, 1]; any shape.
      levels: L, in 2 .. 65536.

    Returns:
      int32 in 0 .. L - 1, of the same shape.

    Raises:
      ValueError: if L is out of range, the dtype is another one, or a pixel is not in [0, 1]
        (checked outside jit; within it such pixels get the nearest level).

    >>> to_levels(jnp.array([0.0, 0.4, 1.0]), 4).tolist()
    [0, 1, 3]
    """
    check_levels(levels)
    dtype = jnp.result_type(images)
    if dtype == jnp.uint8:
        whole = jnp.asarray(images).astype(jnp.int32)
        return (2 * whole * (levels - 1) + 255) // 510
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(
            f"images must be uint8 or floats in [0, 1], got {dtype}; levels of pixels need no "
            "to_levels, other integers are to be divided by their largest value"
        )
    if is_concrete(images) and np.size(images):
        found = np.asarray(images)
        low, high = float(found.min()), float(found.max())
        if not (low >= -_SLACK and high <= 1 + _SLACK):
            raise ValueError(
                f"pixels run from {low} to {high} but must lie in [0, 1]; undo the normalization, "
                "or pass uint8 images"
            )
    pixels = jnp.asarray(images).astype(jnp.promote_types(dtype, jnp.float32))
    return jnp.clip(jnp.round(pixels * (levels - 1)), 0, levels - 1).astype(jnp.int32)


def from_levels(
    values: Integer[ArrayLike, "..."], levels: int, dtype: DTypeLike = jnp.float32
) -> Float[Array, "..."]:
    """2 l / (L - 1) - 1, what networks and likelihoods see of level l, in [-1, 1].

    Args:
      values: levels l in 0 .. L - 1, of any integer dtype and shape.
      levels: L, in 2 .. 65536.
      dtype: of the result, a float.

    Raises:
      ValueError: if L or a level is out of range (levels of pixels: outside jit), or they are not
        integers.
    """
    check_levels(levels)
    return half_bins(check_values(values, levels), levels, dtype) / (levels - 1)


def half_bins(values: Array, levels: int, dtype: DTypeLike) -> Array:
    """2 l - (L - 1), which is exact: position of level l in units of half a bin, 0 in the middle.

    Half a bin is 1 / (L - 1) wide where pixels lie in [-1, 1].
    """
    return (2 * values.astype(jnp.int32) - (levels - 1)).astype(dtype)


def nearest_level(pixels: Array, levels: int) -> Array:
    """The level in 0 .. L - 1 nearest to each pixel, where [-1, 1] is the range of levels."""
    position = (pixels + 1) * ((levels - 1) / 2)
    return jnp.clip(jnp.round(position), 0, levels - 1).astype(jnp.int32)


def bits_per_dimension(
    nats: float | Float[ArrayLike, "..."], image_shape: Sequence[int]
) -> Float[Array, "..."]:
    """Nats of a whole image as bits per pixel and channel: nats / (ln 2 H W C).

    Args:
      nats: of images, such as a negative log-likelihood or its bound; any shape.
      image_shape: (H, W, C), each at least 1.

    Raises:
      ValueError: if `image_shape` is not such a triple.

    >>> round(float(bits_per_dimension(28 * 28 * math.log(256), (28, 28, 1))), 3)
    8.0
    """
    sides = tuple(image_shape)
    if len(sides) != 3 or not all(isinstance(side, Integral) and side >= 1 for side in sides):
        raise ValueError(
            f"image_shape must be (height, width, channels), each at least 1, got {image_shape}"
        )
    nats = jnp.asarray(nats)
    return nats.astype(jnp.promote_types(nats.dtype, jnp.float32)) / (
        math.log(2) * math.prod(sides)
    )


def computing_dtype(array: jax.Array) -> DTypeLike:
    """float32, or float64 for float64: losses of half-precision outputs are computed in it."""
    return jnp.promote_types(array.dtype, jnp.float32)
