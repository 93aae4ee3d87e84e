"""Drawing images from a `PixelCNN`: pixel after pixel, or many at once where the horizon is local.

Pixel p = i W + j of image n is drawn with the key fold_in(fold_in(key, n), p), whatever the order,
so both samplers give the same images. Their sums run in another order, so a draw that lies within
rounding of the border between two levels may fall on either side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Integer, Key, PyTree

from recon_jax.checks import check_integer
from recon_jax.models.checks import as_image_shape
from recon_jax.models.pixelcnn import PixelCNN

# How many sizes of the wavefront are compiled, each again as long: two leave 1.1 to 1.2 evaluations
# for each pixel of an image of 28 x 28, one would 1.2 to 1.5, three 1.1.
WINDOWS = 2

# From a key and the numbers of a pixel (K,) to its levels (C,), whole numbers.
PixelSampler = Callable[[Array, Array], Array]


def _to_pixels(drawn: Array, levels: int, dtype) -> Array:
    return 2 * drawn.astype(dtype) / (levels - 1) - 1


def _pixel_keys(key: Array, count: int, pixels: Array | np.ndarray) -> Array:
    """Keys of these pixels (P,) in every image (N,), (P, N)."""
    images = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(count))
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    return jax.vmap(fold, in_axes=(None, 0))(images, jnp.asarray(pixels))


def _draw(sample: PixelSampler, keys: Array, params: Array) -> Array:
    """Levels (..., C) from keys (...,) and numbers (..., K)."""
    drawn = jax.vmap(sample)(keys.reshape(-1), params.reshape(-1, params.shape[-1]))
    return drawn.reshape(*keys.shape, -1)


def _check(
    head: PixelCNN, features: Array | None, image_shape: Sequence[int], levels: int, count
) -> tuple[tuple[int, int, int], int]:
    """The shape of the images and their number."""
    shape = as_image_shape(image_shape)
    check_integer("levels", levels, 2)
    head.check_sides(*shape[:2])
    if features is None:
        check_integer("count", count, 1, "the number of images, without features")
        if head.horizon == 0:
            raise ValueError("horizon=0 sees no pixels and needs features")
        return shape, count
    if features.ndim != 4 or features.shape[1:3] != shape[:2]:
        raise ValueError(
            f"features must have shape (N, {shape[0]}, {shape[1]}, F) for images of {shape}, got "
            f"{features.shape}"
        )
    if count not in (None, len(features)):
        raise ValueError(f"count={count} is not the {len(features)} images of the features")
    return shape, len(features)


@partial(jax.jit, static_argnames=("head", "sample", "image_shape", "levels", "count"))
def _independent(head, params, sample, key, features, image_shape, levels, count):
    """Every pixel at once."""
    height, width, _ = image_shape
    keys = _pixel_keys(key, count, np.arange(height * width)).T
    numbers = head.apply({"params": params}, None, features)
    return _draw(sample, keys.reshape(count, height, width), numbers)


@partial(jax.jit, static_argnames=("head", "sample", "image_shape", "levels", "count"))
def _one_by_one(head, params, sample, key, features, image_shape, levels, count):
    height, width, channels = image_shape
    horizon = head.horizon
    border = horizon or 0
    dtype = jnp.float32 if features is None else features.dtype
    # Zeros around the image, as the masked convolution has them.
    pixels = jnp.zeros((count, height + border, width + 2 * border, channels), dtype)

    def predict(pixels, i, j):
        if horizon is None:
            return head.apply({"params": params}, pixels, features)[:, i, j]
        shape = (count, horizon + 1, 2 * horizon + 1, channels)
        contexts = jax.lax.dynamic_slice(pixels, (0, i, j, 0), shape)
        here = None if features is None else features[:, i, j]
        return head.apply({"params": params}, contexts, here, method="at")

    def step(pixels, p):
        i, j = p // width, p % width
        keys = _pixel_keys(key, count, p[None])[0]
        drawn = _draw(sample, keys, predict(pixels, i, j))
        value = _to_pixels(drawn, levels, dtype)[:, None, None, :]
        place = (0, i + border, j + border, 0)
        return jax.lax.dynamic_update_slice(pixels, value, place), drawn

    _, drawn = jax.lax.scan(step, pixels, jnp.arange(height * width))
    return drawn.transpose(1, 0, 2).reshape(count, height, width, -1)


def ancestral_sample(
    head: PixelCNN,
    params: PyTree,
    sample: PixelSampler,
    key: Key[Array, ""],
    features: Float[ArrayLike, "n h w f"] | None,
    *,
    image_shape: Sequence[int],
    levels: int,
    count: int | None = None,
) -> Integer[Array, "n h w c"]:
    """Images drawn pixel by pixel, from the upper left to the lower right; one program.

    A local head is evaluated on the (h + 1) x (2 h + 1) pixels around each pixel, a factorised one
    once for all. A full head is evaluated on the whole image for each of its H W pixels, so the
    time is that of H W predictions.

    Args:
      head: the PixelCNN; `VAE.pixelcnn()`.
      params: its parameters; the "head" of a VAE's.
      sample: from a key and numbers (K,) to levels (C,) in 0 .. levels - 1. It is part of what is
        compiled: pass the same function again to compile once.
      key: one key for all images.
      features: (N, H, W, F), or None for a head without.
      image_shape: (H, W, C).
      levels: L >= 2; the head sees level l as the pixel 2 l / (L - 1) - 1.
      count: N without features.

    Returns:
      Levels (N, H, W, C).

    Raises:
      ValueError: if features and image_shape disagree, or about horizon, levels or count.
    """
    features = None if features is None else jnp.asarray(features)
    shape, count = _check(head, features, image_shape, levels, count)
    run = _independent if head.horizon == 0 else _one_by_one
    return run(head, params, sample, key, features, shape, int(levels), int(count))


def wavefront_steps(horizon: int, height: int, width: int) -> int:
    """Steps of the wavefront, W + (h + 1) (H - 1); pixel by pixel they are H W."""
    return width + (horizon + 1) * (height - 1)


def wavefront_rows(horizon: int, height: int, width: int) -> int:
    """Most pixels of an image in one step, min(H, ceil(W / (h + 1)))."""
    return min(height, math.ceil(width / (horizon + 1)))


def _windows(horizon: int, height: int, width: int) -> list[int]:
    """Numbers of rows that steps are compiled for: few rows are active in early and late steps."""
    most = wavefront_rows(horizon, height, width)
    return sorted({math.ceil(most * part / WINDOWS) for part in range(1, WINDOWS + 1)})


@partial(jax.jit, static_argnames=("head", "sample", "image_shape", "levels", "count"))
def _wavefront(head, params, sample, key, features, image_shape, levels, count):
    height, width, channels = image_shape
    h, lag = head.horizon, head.horizon + 1
    dtype = jnp.float32 if features is None else features.dtype
    steps, reach = wavefront_steps(h, height, width), h + lag * h
    # Sheared: entry (t, i) is what row i gets in step t, pixel (i, t - lag i), so that a step
    # writes one slice and reads a few. What is no pixel stays zero, as around the image.
    sheared = jnp.zeros((reach + steps + h, h + height, count, channels), dtype)
    if features is not None:
        features = features.transpose(1, 2, 0, 3)

    def contexts(sheared, t, first, rows):
        shape = (reach + h + 1, h + rows, count, channels)
        near = jax.lax.dynamic_slice(sheared, (t, first, 0, 0), shape)
        # The pixel `up` rows above and dx columns to the right came lag up - dx steps ago.
        places = [
            near[reach + dx - lag * up, h - up : h - up + rows]
            for up in range(h, -1, -1)
            for dx in range(-h, h + 1)
        ]
        seen = jnp.stack(places, axis=2)
        return seen.reshape(rows * count, h + 1, 2 * h + 1, channels)

    def front(rows, sheared, t, first):
        """What a window of rows gets in step t, in a window of the most rows."""
        start = jnp.minimum(first, height - rows)
        i = start + jnp.arange(rows)
        j = t - lag * i
        active = (j >= 0) & (j < width)
        j = jnp.clip(j, 0, width - 1)
        here = None
        if features is not None:
            here = features.at[i, j].get(mode="promise_in_bounds")
            here = here.reshape(rows * count, -1)
        seen = contexts(sheared, t, start, rows)
        numbers = head.apply({"params": params}, seen, here, method="at")
        keys = _pixel_keys(key, count, i * width + j)
        drawn = _draw(sample, keys, numbers.reshape(rows, count, -1))
        value = jnp.where(active[:, None, None], _to_pixels(drawn, levels, dtype), 0)
        padding = jnp.zeros((windows[-1], count, channels), dtype)
        place = start - jnp.minimum(first, height - windows[-1])
        return jax.lax.dynamic_update_slice(padding, value, (place, 0, 0))

    def step(sheared, t):
        first = jnp.maximum(0, -((width - 1 - t) // lag))
        last = jnp.minimum(height - 1, t // lag)
        smallest = jnp.searchsorted(jnp.asarray(windows), last - first + 1)
        branches = [partial(front, rows) for rows in windows]
        value = jax.lax.switch(smallest, branches, sheared, t, first)
        place = (t + reach, jnp.minimum(first, height - windows[-1]) + h, 0, 0)
        return jax.lax.dynamic_update_slice(sheared, value[None], place), None

    windows = _windows(h, height, width)
    sheared, _ = jax.lax.scan(step, sheared, jnp.arange(steps))
    i, j = np.mgrid[:height, :width]
    pixels = sheared[reach + j + lag * i, h + i].transpose(2, 0, 1, 3)
    return jnp.round((pixels + 1) / 2 * (levels - 1)).astype(jnp.int32)


def wavefront_sample(
    head: PixelCNN,
    params: PyTree,
    sample: PixelSampler,
    key: Key[Array, ""],
    features: Float[ArrayLike, "n h w f"] | None,
    *,
    image_shape: Sequence[int],
    levels: int,
    count: int | None = None,
) -> Integer[Array, "n h w c"]:
    """The images of `ancestral_sample` from a local head, in W + (h + 1) (H - 1) steps.

    Pixel (i, j) waits for nothing later than (i - 1, j + h), so step t draws all pixels with j +
    (h + 1) i = t, at most min(H, ceil(W / (h + 1))) of an image.

    Args:
      head: the PixelCNN, with an integer horizon; a factorised one takes a single step.
      params: as in `ancestral_sample`.
      sample: as in `ancestral_sample`.
      key: as in `ancestral_sample`.
      features: as in `ancestral_sample`.
      image_shape: as in `ancestral_sample`.
      levels: as in `ancestral_sample`.
      count: as in `ancestral_sample`.

    Returns:
      Levels (N, H, W, C).

    Raises:
      ValueError: for a full head, and as `ancestral_sample`.

    Source: Zhang et al. 2022 (arXiv 2201.05213), the schedule.
    """
    if head.horizon is None:
        raise ValueError("a wavefront needs an integer horizon; use ancestral_sample for None")
    features = None if features is None else jnp.asarray(features)
    shape, count = _check(head, features, image_shape, levels, count)
    run = _independent if head.horizon == 0 else _wavefront
    return run(head, params, sample, key, features, shape, int(levels), int(count))
