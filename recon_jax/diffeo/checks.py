"""Refusals of bad input, made before any compilation, and the keys of single images."""

from __future__ import annotations

from numbers import Integral

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike

from recon_jax.checks import check_numbers

Size = int | tuple[int, int]


def as_cutoff(cutoff: object) -> int:
    """The cutoff c as an int; ValueError unless it is an integer of at least 2."""
    if not isinstance(cutoff, Integral) or isinstance(cutoff, bool) or cutoff < 2:
        raise ValueError(
            f"cutoff={cutoff!r} must be an integer of at least 2, the highest wave number kept: "
            "temperatures are in units of 1 / ln(cutoff); the papers take 3, 5, 10 and 15"
        )
    return int(cutoff)


def as_size(size: object) -> tuple[int, int]:
    """(H, W) of a size; ValueError unless it is a side or two sides, each at least 2 pixels."""
    sides = (size, size) if isinstance(size, Integral) else size
    if (
        not isinstance(sides, tuple | list)
        or len(sides) != 2
        or not all(isinstance(side, Integral) and side >= 2 for side in sides)
    ):
        raise ValueError(
            f"size={size!r} must be one side or (height, width) in pixels, each at least 2: fields "
            "vanish on the border pixels, of which there are two to a side"
        )
    return int(sides[0]), int(sides[1])


def check_temperature(temperature: ArrayLike) -> None:
    """Raise ValueError unless all temperatures are finite and >= 0. Skipped inside jit."""
    meaning = "the variance of the waves; 0 deforms nothing"
    check_numbers("temperature", temperature, "[0, inf)", meaning)


def as_images(images: ArrayLike) -> Array:
    """Images as float32, or float64 if they are; ValueError unless (N, H, W, C), H and W >= 2.

    Integers keep their values: 8-bit images run from 0 to 255.
    """
    images = as_floats(images)
    if images.ndim != 4:
        raise ValueError(
            f"images must have shape (N, height, width, channels), got {images.shape}; "
            "a single image needs a leading axis: images[None]"
        )
    as_size(images.shape[1:3])
    return images


def as_floats(array: ArrayLike) -> Array:
    """The array as float32, or float64 if it is."""
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def as_keys(key: jax.Array, count: int) -> jax.Array:
    """The key or keys as typed ones; ValueError unless there is one, or one an image."""
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(key)
    if key.shape not in ((), (count,)):
        raise ValueError(
            f"{count} images need one key or {count} keys, got keys of shape {key.shape}"
        )
    return key


def image_keys(key: jax.Array, count: int) -> jax.Array:
    """One key an image (count,): fold_in(key, i) of a single key; several stay as they are.

    Those of the first images do not depend on how many follow.
    """
    if key.ndim:
        return key
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(count))
