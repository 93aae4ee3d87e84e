"""Views of small grey images: geometry, contrast, brightness and noise, of one strength."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_jax import diffeo
from recon_jax.augment.checks import check_shape
from recon_jax.augment.policies import StrengthPolicy
from recon_jax.augment.strength import strength_policy
from recon_jax.checks import check_numbers


def grey_views(
    image_shape: tuple[int, int, int],
    *,
    rotation: float = 90.0,
    translation: float = 2.5 / 8,
    zoom: float = 0.5,
    contrast: float = 0.8,
    brightness: float = 0.4,
    noise: float = 0.2,
) -> StrengthPolicy:
    """Views of digits and the like, every range times the strength a of the image.

    The image is turned about its centre by an angle uniform in +- a rotation, magnified by exp(z),
    z uniform in +- a zoom, and shifted by a uniform part of height and of width, each in
    +- a translation: the pixel p of the view reads the image at

      c + R(-angle) (p - c - shift) / exp(z),

    c the centre, bilinearly, with black (0) beyond the border. Then, in each channel, contrast
    about the channel's mean is multiplied by exp(k), k uniform in +- a contrast, a number uniform
    in +- a brightness is added to all pixels, and to each pixel noise from N(0, (a noise)^2).

    Nothing is clipped, so that the noise stays Gaussian. At a = 0 images stay as they are, exactly.
    The key of an image is split in two: all numbers but the noise come from the first in one draw,
    float32 also for float64 images, the noise from the second.

    Args:
      image_shape: (H, W, C), H and W at least 2.
      rotation: degrees, in [0, 180].
      translation: part of the side, in [0, 1]; the default is 2.5 pixels of 8.
      zoom: >= 0, natural logarithm.
      contrast: >= 0, natural logarithm.
      brightness: >= 0, in units of the pixels.
      noise: standard deviation, >= 0, in units of the pixels.

    Returns:
      The `StrengthPolicy`.

    Raises:
      ValueError: if a number is out of range; by the policy, for integer images, another shape, or
        a strength outside [0, 1] (checked outside jit).

    Source: this library's, for the claims of Cosentino et al. 2022 (arXiv 2205.06926).
    """
    check_shape(image_shape)
    check_numbers("rotation", rotation, "[0, 180]", "degrees, either way")
    check_numbers("translation", translation, "[0, 1]", "a part of height and width, either way")
    check_numbers("zoom", zoom, "[0, inf)", "log of the largest magnification")
    check_numbers("contrast", contrast, "[0, inf)", "log of the largest factor")
    check_numbers("brightness", brightness, "[0, inf)", "the largest number added or taken")
    check_numbers("noise", noise, "[0, inf)", "the standard deviation at full strength")
    # Angle, zoom, contrast, brightness, shifts down and across.
    full = (math.radians(rotation), zoom, contrast, brightness, translation, translation)

    def drawn(key):
        number_key, noise_key = jax.random.split(key)
        numbers = jax.random.uniform(number_key, (len(full),), jnp.float32)
        return numbers, jax.random.normal(noise_key, image_shape, jnp.float32)

    def views(images, a, numbers_and_noise):
        numbers, white = numbers_and_noise
        angle, log_zoom, log_contrast, added, *shift = (
            a * most * (2 * number - 1) for most, number in zip(full, numbers.T, strict=True)
        )
        # A condition, for XLA would fuse what is not behind one and read between pixels again for
        # every use of the result.
        moved = jax.lax.cond(
            (a > 0).any(), lambda: transformed(images, angle, log_zoom, *shift), lambda: images
        )
        # In this form a contrast of 1 changes nothing, not even the last bit.
        moved += _each(jnp.expm1(log_contrast)) * (moved - moved.mean((1, 2), keepdims=True))
        return moved + _each(added) + _each(a * noise) * white

    return strength_policy(image_shape, drawn, views)


def transformed(
    images: Float[Array, "n h w c"],
    angle: Float[Array, " n"],
    log_zoom: Float[Array, " n"],
    down: Float[Array, " n"],
    across: Float[Array, " n"],
) -> Float[Array, "n h w c"]:
    """Images turned about their centre and magnified, then shifted; black comes in.

    Args:
      images: (N, H, W, C).
      angle: radians, from the x axis (right) towards the y axis (down), (N,).
      log_zoom: natural logarithm of the magnification, (N,).
      down: shift as a part of the height, (N,).
      across: shift as a part of the width, (N,).
    """
    # One black pixel around the image: what is read beyond is clamped to it.
    padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = padded.shape[1:3]
    y = jnp.arange(height, dtype=images.dtype)[None, :, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=images.dtype)[None, None, :] - (width - 1) / 2
    angle, log_zoom, down, across = (
        number[:, None, None] for number in (angle, log_zoom, down, across)
    )
    below, right = y - down * images.shape[1], x - across * images.shape[2]
    cos, sin = (turn(angle) * jnp.exp(-log_zoom) for turn in (jnp.cos, jnp.sin))
    dy = y - (cos * below - sin * right)
    dx = x - (cos * right + sin * below)
    return diffeo.warp(padded, dx, dy)[:, 1:-1, 1:-1]


def _each(numbers):
    return numbers[:, None, None, None]
