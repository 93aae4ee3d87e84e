"""Images seen through displacement fields: three ways to read between the pixels.

The deformed image at pixel (y, x) is the image at (y - dy, x - dx), clamped to the image.

Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped

from recon_jax.checks import check_choice
from recon_jax.diffeo.checks import (
    as_cutoff,
    as_floats,
    as_images,
    as_keys,
    check_temperature,
    image_keys,
)
from recon_jax.diffeo.fields import displacement_field, sample_coefficients

INTERPOLATIONS = ("bilinear", "gaussian", "nearest")

# Standard deviation in pixels of the Gaussian that "gaussian" reads with, in the released code.
GAUSSIAN_WIDTH = 0.4715

# Numbers that the weights of "gaussian" and their products may take up at a time.
_GAUSSIAN_CHUNK = 2**22


def warp(
    images: Shaped[ArrayLike, "..."],
    dx: Shaped[ArrayLike, "..."],
    dy: Shaped[ArrayLike, "..."],
    interpolation: str = "bilinear",
) -> Float[Array, "n h w c"]:
    """Images moved by displacement fields: out[y, x] = image(y - dy[y, x], x - dx[y, x]).

    The place is clamped to the image, 0 .. H - 1 and 0 .. W - 1. What lies between pixels is

    - bilinear: the weighted mean of the four pixels around;
    - gaussian: the mean of all pixels with weights exp(-r^2 / (2 s^2)), r the distance and s =
      0.4715 pixels. It smooths also where nothing moves, so compare with `reference`;
    - nearest: the nearest pixel, a tie going to the even row or column.

    Linear in the images; differentiable in images and, but for "nearest", in the fields.

    Args:
      images: (N, H, W, C), H and W at least 2. Integers keep their values and become float32.
      dx: displacements along x (columns) in pixels, (N, H, W), one field an image.
      dy: along y (rows), likewise.
      interpolation: one of `INTERPOLATIONS`.

    Returns:
      The deformed images, float32, or float64 for float64 images.

    Raises:
      ValueError: if the shapes do not fit or the interpolation is unknown.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    images, dx, dy = as_images(images), as_floats(dx), as_floats(dy)
    if dx.shape != images.shape[:3] or dy.shape != images.shape[:3]:
        raise ValueError(
            f"dx and dy must have shape {images.shape[:3]}, one field an image, got {dx.shape} and "
            f"{dy.shape}"
        )
    return _warp(images, dx, dy, interpolation)


def reference(
    images: Shaped[ArrayLike, "..."], interpolation: str = "bilinear"
) -> Float[Array, "n h w c"]:
    """What a field of zeros makes of the images: what deformed images are to be compared with.

    The images themselves for "bilinear" and "nearest"; smoothed ones for "gaussian".

    Args:
      images: (N, H, W, C), H and W at least 2. Integers keep their values and become float32.
      interpolation: one of `INTERPOLATIONS`.

    Raises:
      ValueError: if the images have another shape or the interpolation is unknown.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code of the measurements.
    """
    images = as_images(images)
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    if interpolation != "gaussian":
        return images
    rows, columns = (
        _gaussian_weights(jnp.arange(side, dtype=images.dtype), side) for side in images.shape[1:3]
    )
    return jnp.einsum("yv,nvuc,xu->nyxc", rows, images, columns, precision="highest")


def deform(
    key: jax.Array,
    images: Shaped[ArrayLike, "..."],
    cutoff: int,
    temperature: ArrayLike,
    interpolation: str = "bilinear",
) -> Float[Array, "n h w c"]:
    """Images under max-entropy deformations, each under one of its own.

    Args:
      key: one key, of which image i takes fold_in(key, i), so that the first images do not depend
        on how many follow; or keys (N,), one an image. All channels share a field.
      images: (N, H, W, C), H and W at least 2. Integers keep their values and become float32.
      cutoff: c >= 2, the highest wave number of the fields.
      temperature: T >= 0, a number or one an image (N,); see `temperature_for`.
      interpolation: one of `INTERPOLATIONS`; compare "gaussian" with `reference`.

    Returns:
      The deformed images, float32, or float64 for float64 images.

    Raises:
      ValueError: if a number is out of range, a shape does not fit, or the interpolation is
        unknown.

    Source: Petrini et al. 2021 (arXiv 2105.02468), section 2 and released code.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    cutoff, images = as_cutoff(cutoff), as_images(images)
    check_temperature(temperature)
    temperature = jnp.asarray(temperature, images.dtype)
    if temperature.shape not in ((), images.shape[:1]):
        raise ValueError(
            f"temperature has shape {temperature.shape}; one number or one for each of the "
            f"{len(images)} images is needed"
        )
    return _deform(as_keys(key, len(images)), images, temperature, cutoff, interpolation)


@functools.partial(jax.jit, static_argnames=("cutoff", "interpolation"))
def _deform(key, images, temperature, cutoff, interpolation):
    keys = image_keys(key, len(images))
    A, B = jax.vmap(lambda key: sample_coefficients(key, cutoff, images.dtype))(keys)
    dx, dy = displacement_field(A, B, images.shape[1:3], temperature)
    return _warp(images, dx, dy, interpolation)


@functools.partial(jax.jit, static_argnames="interpolation")
def _warp(images, dx, dy, interpolation):
    height, width = images.shape[1:3]
    x = jnp.clip(jnp.arange(width, dtype=dx.dtype)[None, None, :] - dx, 0, width - 1)
    y = jnp.clip(jnp.arange(height, dtype=dy.dtype)[None, :, None] - dy, 0, height - 1)
    return {"bilinear": _bilinear, "gaussian": _gaussian, "nearest": _nearest}[interpolation](
        images, x, y
    )


def _reader(images, row, column):
    """(down, right) -> pixel vectors (N, H, W, C) that far from whole places, given as floats."""
    count, height, width, channels = images.shape
    pixels = images.reshape(-1, channels)
    index = row.astype(jnp.int32) * width + column.astype(jnp.int32)
    index += jnp.arange(count, dtype=jnp.int32)[:, None, None] * (height * width)
    return lambda down, right: pixels.at[index + (down * width + right)].get(
        mode="promise_in_bounds"
    )


def _bilinear(images, x, y):
    # The last pixel is read as the right end of the last pair, so that every place has two.
    column = jnp.minimum(jnp.floor(x), images.shape[2] - 2)
    row = jnp.minimum(jnp.floor(y), images.shape[1] - 2)
    right, down = (part.astype(images.dtype)[..., None] for part in (x - column, y - row))
    at = _reader(images, row, column)
    above = at(0, 0) * (1 - right) + at(0, 1) * right
    below = at(1, 0) * (1 - right) + at(1, 1) * right
    return above * (1 - down) + below * down


def _nearest(images, x, y):
    return _reader(images, jnp.round(y), jnp.round(x))(0, 0)


def _gaussian_weights(place, side):
    """Weights of the pixels 0 .. side - 1 on an axis, which sum to 1: (..., side)."""
    pixels = jnp.arange(side, dtype=place.dtype)
    distance = jax.vmap(lambda pixel: place - pixel, out_axes=-1)(pixels)
    weights = jnp.exp(-jnp.square(distance / GAUSSIAN_WIDTH) / 2)
    return weights / weights.sum(-1, keepdims=True)


def _gaussian(images, x, y):
    height, width, channels = images.shape[1:]
    numbers = width * (width + height + height * channels)

    # The weight of a pixel is a product over the axes, so the mean is taken along one, then the
    # other. Whole images at once would need N H^2 W C numbers.
    def one(image_and_places):
        image, *places = image_and_places

        @jax.checkpoint
        def one_row(places):
            across, down = (
                _gaussian_weights(place, side).astype(image.dtype)
                for place, side in zip(places, (width, height), strict=True)
            )
            columns = jnp.einsum("xu,vuc->xvc", across, image, precision="highest")
            return jnp.einsum("xv,xvc->xc", down, columns, precision="highest")

        return jax.lax.map(one_row, tuple(places), batch_size=max(1, _GAUSSIAN_CHUNK // numbers))

    return jax.lax.map(one, (images, x, y))
