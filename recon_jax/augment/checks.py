"""Refusals of bad input of the policies with a strength, made before any compilation."""

from __future__ import annotations

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike

from recon_jax.checks import check_numbers


def check_strength(strength: ArrayLike) -> None:
    """Raise ValueError unless all strengths are in [0, 1]. Skipped inside jit."""
    meaning = (
        "0 leaves images as they are, 1 takes the full ranges; widen the ranges of the policy for "
        "more"
    )
    check_numbers("strength", strength, "[0, 1]", meaning)


def as_strengths(strength: ArrayLike, count: int, dtype: DTypeLike) -> Array:
    """Strengths of single images (count,); ValueError unless one number or one an image, in [0, 1].

    Values are not checked inside jit.
    """
    check_strength(strength)
    strengths = jnp.asarray(strength, dtype)
    if strengths.shape not in ((), (count,)):
        raise ValueError(
            f"strength has shape {strengths.shape}; one number or one for each of the {count} "
            "images is needed"
        )
    return jnp.broadcast_to(strengths, (count,))


def check_shape(image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless images have two sides of at least 2 pixels, and channels."""
    if len(image_shape) != 3 or min(image_shape[:2]) < 2 or image_shape[2] < 1:
        raise ValueError(
            f"image_shape={tuple(image_shape)} must be (height, width, channels), height and width "
            "at least 2"
        )


def check_images(keys: Array, images: Array, image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless images are floats of the policy's shape, each with a key."""
    if images.ndim != 4 or images.shape[1:] != tuple(image_shape):
        raise ValueError(
            f"images have shape {images.shape}; the policy was made for (N, "
            f"{', '.join(map(str, image_shape))})"
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images are {images.dtype}, floats are needed: divide 8-bit images by 255 for pixels "
            "in [0, 1]"
        )
    if keys.shape[:1] != images.shape[:1]:
        raise ValueError(
            f"{len(images)} images need {len(images)} keys, got keys of shape {keys.shape}: "
            "jax.random.split(key, len(images)) makes them"
        )
