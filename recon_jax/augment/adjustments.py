"""Colours and sharpness of many images at once, each by numbers of its own, channels first.

The functions are those of dm-pix but for what the docstrings say. dm-pix keeps the channels last,
where the CPU computes colours several times slower, and blurs images under `vmap` by a convolution
with as many groups as there are images.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Luma of `dm_pix.rgb_to_grayscale`: ITU-R BT.601.
_LUMA = (0.2989, 0.5870, 0.1140)


def each(numbers: Float[Array, " n"]) -> Float[Array, "n 1 1"]:
    """Numbers of the images, to be combined with a plane."""
    return numbers[:, None, None]


def brightness_contrast(
    planes: Float[Array, "c n h w"], brightness: Float[Array, " n"], contrast: Float[Array, " n"]
) -> Float[Array, "c n h w"]:
    """Values times b, clipped to [0, 1], then distances from their mean times f, clipped again.

    The mean is over a channel of an image, as in `dm_pix.adjust_contrast`. dm-pix changes
    brightness by adding, which paper and torchvision do not.

    Args:
      planes: channels of all images (C, N, H, W).
      brightness: b >= 0 of each image (N,).
      contrast: f >= 0 of each image (N,).
    """

    def one(plane):
        plane = jnp.clip(plane * each(brightness), 0, 1)
        mean = plane.mean((1, 2), keepdims=True)
        return jnp.clip(mean + each(contrast) * (plane - mean), 0, 1)

    # A loop, here and below, because XLA would fuse these steps with the ones before and after, and
    # compute all of them anew for every pixel read: twenty times slower. It drops barriers first.
    return jax.lax.map(one, planes)


def hue_saturation(
    planes: Float[Array, "3 n h w"], turn: Float[Array, " n"], factor: Float[Array, " n"]
) -> Float[Array, "3 n h w"]:
    """Hue turned and saturation multiplied, up to full saturation; the largest channel stays.

    `dm_pix.adjust_saturation` after `dm_pix.adjust_hue`, with one way to HSV and back.

    Args:
      planes: red, green and blue of all images in [0, 1].
      turn: part of the colour circle, (N,).
      factor: of the saturation, >= 0, (N,).
    """
    red, green, blue = planes
    value = jnp.maximum(jnp.maximum(red, green), blue)
    spread = value - jnp.minimum(jnp.minimum(red, green), blue)
    per_spread = 1 / jnp.where(spread > 0, spread, 1)
    # Hue in sixths of the circle.
    hue = jnp.where(value == green, (blue - red) * per_spread + 2, (red - green) * per_spread + 4)
    hue = jnp.where(value == red, (green - blue) * per_spread, hue) + 6 * each(turn)
    hue -= 6 * jnp.floor(hue / 6)
    # Saturation is spread / value, at most 1.
    spread = jnp.minimum(spread * each(factor), value)
    shares = (jnp.abs(hue - 3) - 1, 2 - jnp.abs(hue - 2), 2 - jnp.abs(hue - 4))
    return jnp.stack([value - spread * (1 - jnp.clip(share, 0, 1)) for share in shares])


def luma(planes: Float[Array, "3 n h w"]) -> Float[Array, "n h w"]:
    """Brightness of colours: `dm_pix.rgb_to_grayscale`."""
    red, green, blue = (weight * plane for weight, plane in zip(_LUMA, planes, strict=True))
    return red + green + blue


def gaussian_weights(width: Float[Array, " n"], radius: int) -> Float[Array, "n k"]:
    """Weights exp(-d^2 / (2 s^2)) of pixels at distances d = 0 .. r, over the sum of all 2 r + 1.

    Args:
      width: s of each image in pixels, >= 0, (N,); below 1e-3 as 1e-3, which blurs nothing.
      radius: r.
    """
    distance = jnp.arange(radius + 1, dtype=width.dtype)[None, :]
    weights = jnp.exp(-jnp.square(distance / jnp.maximum(width, 1e-3)[:, None]) / 2)
    return weights / (2 * weights.sum(1, keepdims=True) - weights[:, :1])


def blur(planes: Float[Array, "c n h w"], weights: Float[Array, "n k"]) -> Float[Array, "c n h w"]:
    """Weighted means along columns, then along rows, of planes reflected at their borders.

    `dm_pix.gaussian_blur` but at the borders, which that darkens: it reads zeros beyond them.

    Args:
      planes: channels of all images (C, N, H, W), each side larger than r.
      weights: of `gaussian_weights`, (N, r + 1).
    """
    radius = weights.shape[1] - 1

    def one(plane, axis):
        border = [(radius, radius) if i == axis else (0, 0) for i in range(3)]
        padded, side = jnp.pad(plane, border, "reflect"), plane.shape[axis]

        def shifted(by):
            return jax.lax.slice_in_dim(padded, radius + by, radius + by + side, axis=axis)

        total = each(weights[:, 0]) * plane
        for distance in range(1, radius + 1):
            total += each(weights[:, distance]) * (shifted(-distance) + shifted(distance))
        return total

    for axis in (1, 2):
        planes = jax.lax.map(lambda plane, axis=axis: one(plane, axis), planes)
    return planes
