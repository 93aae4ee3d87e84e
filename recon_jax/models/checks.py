"""Refusals of bad sizes, made from static shapes, so that they come before any compilation."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike


def as_image_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape as a tuple; ValueError unless it is (height, width, channels), each at least 1."""
    sides = tuple(shape)
    if len(sides) != 3 or not all(isinstance(side, Integral) and side >= 1 for side in sides):
        raise ValueError(
            f"image_shape must be (height, width, channels), each at least 1, got {shape}"
        )
    return sides


def as_images(images: ArrayLike, min_side: int = 1, way_out: str = "resize the images") -> Array:
    """The images as an array; ValueError unless (N, H, W, C) with H and W at least `min_side`."""
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape (N, height, width, channels), got {images.shape}; "
            "a single image needs a leading axis: images[None]"
        )
    height, width = images.shape[1:3]
    if min(height, width) < min_side:
        raise ValueError(
            f"images of {height} x {width} are too small for the poolings of this model, which "
            f"need at least {min_side} x {min_side}; {way_out}"
        )
    return images


def require_shape(what: str, array: ArrayLike, shape: tuple[int, ...]) -> Array:
    """The array; ValueError unless its shape is (N, *shape)."""
    array = jnp.asarray(array)
    if array.ndim != 1 + len(shape) or array.shape[1:] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(
            f"{what} must have shape (N, {expected}), got {array.shape}; "
            "build the model with the image_shape and latent_size of the data at hand"
        )
    return array
