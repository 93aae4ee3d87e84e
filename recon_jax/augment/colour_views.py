"""Views of colour images: crop, flip, colour jitter, grey and blur, of one strength."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_jax import diffeo
from recon_jax.augment import adjustments
from recon_jax.augment.checks import check_shape
from recon_jax.augment.cropping import window
from recon_jax.augment.policies import StrengthPolicy
from recon_jax.augment.strength import strength_policy
from recon_jax.checks import check_numbers


def colour_views(
    image_shape: tuple[int, int, int],
    *,
    least_area: float = 0.08,
    ratio: float = 4 / 3,
    flip: float = 0.5,
    jitter: float = 0.8,
    brightness: float = 0.8,
    contrast: float = 0.8,
    saturation: float = 0.8,
    hue: float = 0.2,
    grey: float = 0.2,
    blur: float = 0.5,
    blur_width: tuple[float, float] = (0.1, 2.0),
) -> StrengthPolicy:
    """SimCLR's views of natural images, every range times the strength a of the image.

    In this order:

    - a crop of an area uniform in 1 - a (1 - least_area) .. 1 and a log aspect ratio uniform in
      +- a log(ratio), cut to the image, at a uniform place, resized back bilinearly;
    - mirrored left to right with probability a flip;
    - with probability jitter, whatever a is: all values times a uniform number in 1 +- a
      brightness; contrast about the mean of each channel times one in 1 +- a contrast; hue turned
      by one in +- a hue of the circle and saturation (of HSV) times one in 1 +- a saturation;
      always in this order, clipped to [0, 1] after each;
    - grey with probability a grey;
    - with probability blur, whatever a is: blurred by a Gaussian of a standard deviation uniform
      in a blur_width, in pixels, cut off at a twentieth of the height, at least 1 pixel, and
      reflected at the borders.

    Images are clipped to [0, 1] at the end. At a = 0 images in [0, 1] stay as they are, exactly.
    Those without three channels have no hue, saturation and grey. All numbers of an image come
    from its key in one draw, float32 also for float64 images.

    Args:
      image_shape: (H, W, C), H and W at least 2.
      least_area: smallest fraction of the area kept, in (0, 1].
      ratio: largest ratio of the crop's sides over the image's, at least 1.
      flip: probability, in [0, 1].
      jitter: probability, in [0, 1].
      brightness: in [0, 1].
      contrast: in [0, 1].
      saturation: in [0, 1].
      hue: part of the colour circle, in [0, 0.5].
      grey: probability, in [0, 1].
      blur: probability, in [0, 1].
      blur_width: smallest and largest standard deviation in pixels, 0 <= smallest <= largest.

    Returns:
      The `StrengthPolicy`, of images in [0, 1].

    Raises:
      ValueError: if a number is out of range; by the policy, for integer images, another shape, or
        a strength outside [0, 1] (checked outside jit).

    Source: Chen et al. 2020 (arXiv 2002.05709), section 3 and appendix A, which jitters in random
      order; there s = 1 has these numbers of colour, s = 0.5 half of them. How the ranges grow
      with one strength is this library's, after Cosentino et al. 2022 (arXiv 2205.06926).
    """
    check_shape(image_shape)
    ranges = _Ranges(
        least_area,
        ratio,
        flip,
        jitter,
        brightness,
        contrast,
        saturation,
        hue,
        grey,
        blur,
        blur_width,
    )
    _check(ranges)
    radius = max(1, image_shape[0] // 20)

    def views(images, a, u):
        # A condition, for XLA would fuse what is not behind one and read between pixels again for
        # every use of the result.
        whole = jax.lax.cond((a > 0).any(), lambda: _cropped(images, a, u, ranges), lambda: images)
        planes = _jittered(jnp.moveaxis(whole, -1, 0), a, u, ranges)
        planes = jnp.clip(_blurred(planes, a, u, ranges, radius), 0, 1)
        return jnp.where((a > 0)[:, None, None, None], jnp.moveaxis(planes, 0, -1), images)

    return strength_policy(image_shape, _uniforms, views)


class _Ranges(NamedTuple):
    """Options of `colour_views`."""

    least_area: float
    ratio: float
    flip: float
    jitter: float
    brightness: float
    contrast: float
    saturation: float
    hue: float
    grey: float
    blur: float
    blur_width: tuple[float, float]


def _check(ranges: _Ranges) -> None:
    check_numbers("least_area", ranges.least_area, "[1e-6, 1]", "part of the area; 1 crops nothing")
    check_numbers("ratio", ranges.ratio, "[1, inf)", "a ratio of sides; 1 keeps the image's")
    for name in ("flip", "jitter", "grey", "blur"):
        check_numbers(name, getattr(ranges, name), "[0, 1]", "a probability")
    for name in ("brightness", "contrast", "saturation"):
        check_numbers(name, getattr(ranges, name), "[0, 1]", "how far the factor may be from 1")
    check_numbers("hue", ranges.hue, "[0, 0.5]", "part of the colour circle, turned either way")
    narrow, wide = ranges.blur_width
    check_numbers("blur_width[0]", narrow, "[0, inf)", "the least standard deviation in pixels")
    check_numbers("blur_width[1]", wide, f"[{narrow}, inf)", "the largest one, not below the least")


# What is drawn for an image: the order is that of the numbers of its key.
_DRAWN = (
    *("area", "ratio", "down", "across", "flip", "jitter", "brightness", "contrast", "hue"),
    *("saturation", "grey", "blur", "blur_width"),
)


def _uniforms(key: Array) -> dict[str, Float[Array, ""]]:
    """Independent numbers in [0, 1) of an image, by name."""
    drawn = jax.random.uniform(key, (len(_DRAWN),), jnp.float32)
    return dict(zip(_DRAWN, drawn, strict=True))


def _signed(uniform: Float[Array, " n"]) -> Float[Array, " n"]:
    return 2 * uniform - 1


def _cropped(images, a, u, ranges):
    """Windows of the images at the size of the images, mirrored now and then."""
    area = 1 - a * (1 - ranges.least_area) * u["area"]
    log_ratio = a * math.log(ranges.ratio) * _signed(u["ratio"])
    place = jnp.stack([u["down"], u["across"]], 1)
    first, shape = jax.vmap(window)(area, log_ratio, place)
    mirrored = (u["flip"] < a * ranges.flip)[:, None]
    moved = []
    for axis, side in enumerate(images.shape[1:3]):
        pixels = jnp.arange(side, dtype=images.dtype)[None, :]
        pixel = jnp.where(mirrored, side - 1 - pixels, pixels) if axis else pixels
        read = first[:, axis, None] * side + shape[:, axis, None] * (pixel + 0.5) - 0.5
        moved.append(jnp.expand_dims(pixels - read, 2 - axis))
    dy, dx = (jnp.broadcast_to(part, images.shape[:3]) for part in moved)
    # A window is never larger than the image, so this equals resizing with antialiasing, and takes
    # a third of the time.
    return diffeo.warp(images, dx, dy)


def _jittered(planes, a, u, ranges):
    """Images (C, N, H, W) of other colours."""
    reach = a * (u["jitter"] < ranges.jitter)

    def factor(name):
        return 1 + reach * getattr(ranges, name) * _signed(u[name])

    planes = adjustments.brightness_contrast(planes, factor("brightness"), factor("contrast"))
    if len(planes) != 3:
        return planes
    turn = reach * ranges.hue * _signed(u["hue"])
    planes = adjustments.hue_saturation(planes, turn, factor("saturation"))
    lost = (u["grey"] < a * ranges.grey)[None, :, None, None]
    return jnp.where(lost, adjustments.luma(planes)[None], planes)


def _blurred(planes, a, u, ranges, radius):
    """Images (C, N, H, W), some blurred."""
    narrow, wide = ranges.blur_width
    width = a * (narrow + (wide - narrow) * u["blur_width"]) * (u["blur"] < ranges.blur)
    return adjustments.blur(planes, adjustments.gaussian_weights(width, radius))
