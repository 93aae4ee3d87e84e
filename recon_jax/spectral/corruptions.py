"""Corruptions of images, each as a sampler together with its exact first and second moments.

The denoising theory sees a corruption T only through E[T(x)] = G x and sum_n E[T(x_n) T(x_n)^T], so
a corruption is a NamedTuple of three pure functions: `corrupt` draws, `gain` and `second_moment`
are what the draws average to. All act on centred images, so zero fill means the mean image.
Flattened images run over height, width, channel, in this order (NHWC).

Source: Balestriero & LeCun 2024 (arXiv 2402.11337) and its released code for Gaussian noise and
Bernoulli masks; the other moments are derived here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import is_concrete

ImageShape = tuple[int, int, int]


class PatchMask(NamedTuple):
    """The patches that a mask with an exact count leaves visible.

    Attributes:
      patch_size: height and width of a patch in pixels.
      grid: rows and columns of patches.
      num_visible: m, the same in every image.
      visible: key -> indices of the visible patches of one image, int32 (m,), ascending, row by row
        of the grid. The corruption draws image n of N with key n of `jax.random.split(key, N)`.
    """

    patch_size: tuple[int, int]
    grid: tuple[int, int]
    num_visible: int
    visible: Callable[[Array], Array]


class Corruption(NamedTuple):
    """A random map T of centred images and its exact moments.

    Attributes:
      name: for tables and figures.
      corrupt: (key, images) -> images of the same shape, (N, H, W, C) or (N, D), independent draws
        for every image.
      gain: images -> E[T(images)], linear in the images, same shapes.
      second_moment: (scatter (D, D), count N) -> sum_n E[T(x_n) T(x_n)^T] (D, D).
      mask: for masks that leave the same number of patches visible in every image, which ones;
        None for all other corruptions.
    """

    name: str
    corrupt: Callable[[Array, Array], Array]
    gain: Callable[[Array], Array]
    second_moment: Callable[[Array, ArrayLike], Array]
    mask: PatchMask | None = None


def check_shape(image_shape: Sequence[int]) -> ImageShape:
    """The shape as a tuple; ValueError unless it is (height, width, channels), each at least 1."""
    shape = tuple(int(side) for side in image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (height, width, channels), got {image_shape}")
    return shape


def check_range(name: str, value: ArrayLike, low: float, high: float) -> None:
    """Raise ValueError unless low <= value < high. Skipped inside jit."""
    if is_concrete(value) and not bool(np.all((np.asarray(value) >= low) & (value < high))):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}), got {value}")


def number(value: ArrayLike) -> str:
    """The value as it stands in a name."""
    return f"{float(value):g}" if is_concrete(value) else "traced"


def on_images(fn: Callable[[Array], Array], image_shape: ImageShape):
    """Let a function of (..., H, W, C) accept flattened images (..., D) too."""

    def wrapped(images):
        images = jnp.asarray(images)
        if images.shape[-3:] != image_shape and images.shape[-1:] != (math.prod(image_shape),):
            raise ValueError(
                f"images of shape {images.shape} are neither (..., {image_shape}) nor "
                f"(..., {math.prod(image_shape)})"
            )
        # The flattened reading wins where both would fit, as for images of one scalar.
        if images.shape[-1] == math.prod(image_shape):
            return fn(images.reshape(*images.shape[:-1], *image_shape)).reshape(images.shape)
        return fn(images)

    return wrapped


def identity(image_shape: ImageShape) -> Corruption:
    """No corruption: T(x) = x, G = I, second moment S. Denoising becomes PCA.

    Args:
      image_shape: (H, W, C).
    """
    shape = check_shape(image_shape)
    return Corruption(
        name="none",
        corrupt=lambda key, images: on_images(lambda x: x, shape)(images),
        gain=on_images(lambda x: x, shape),
        second_moment=lambda scatter, count: scatter,
    )


def gaussian(stddev: ArrayLike, image_shape: ImageShape) -> Corruption:
    """Isotropic Gaussian noise: T(x) = x + e, e ~ N(0, stddev^2 I). Second moment S + N stddev^2 I.

    Args:
      stddev: standard deviation in the units of the images, >= 0.
      image_shape: (H, W, C).
    """
    shape = check_shape(image_shape)
    check_range("stddev", stddev, 0, math.inf)

    def second_moment(scatter, count):
        return scatter + jnp.diag(jnp.full(scatter.shape[:1], count * stddev**2, scatter.dtype))

    return Corruption(
        name=f"gaussian({number(stddev)})",
        corrupt=lambda key, images: (
            images + stddev * jax.random.normal(key, images.shape, images.dtype)
        ),
        gain=on_images(lambda x: x, shape),
        second_moment=second_moment,
    )


def correlated_gaussian(covariance: Float[ArrayLike, "d d"], image_shape: ImageShape) -> Corruption:
    """Gaussian noise with any covariance: T(x) = x + e, e ~ N(0, C). Second moment S + N C.

    Args:
      covariance: symmetric positive semi-definite (D, D), in squared units of the images.
      image_shape: (H, W, C) with H W C = D.

    Raises:
      ValueError: if the covariance has the wrong shape, is not symmetric or not semi-definite.
    """
    shape = check_shape(image_shape)
    covariance = jnp.asarray(covariance)
    size = math.prod(shape)
    if covariance.shape != (size, size):
        raise ValueError(
            f"covariance must be {(size, size)} for images {shape}, got {covariance.shape}"
        )
    values, vectors = jnp.linalg.eigh(covariance)
    if is_concrete(values):
        scale = float(jnp.abs(values).max())
        slack = 1e3 * float(jnp.finfo(covariance.dtype).eps) * scale
        if not float(jnp.abs(covariance - covariance.T).max()) <= slack:
            raise ValueError("covariance must be symmetric and finite")
        if float(values[0]) < -slack:
            raise ValueError(
                f"covariance must be positive semi-definite; it has {float(values[0]):.3g}"
            )
    root = vectors * jnp.sqrt(jnp.maximum(values, 0))[None, :]

    def corrupt(key, images):
        white = jax.random.normal(key, (images.shape[0], size), images.dtype)
        noise = jnp.matmul(white, root.T.astype(images.dtype), precision="highest")
        return images + noise.reshape(images.shape)

    return Corruption(
        name="correlated_gaussian",
        corrupt=corrupt,
        gain=on_images(lambda x: x, shape),
        second_moment=lambda scatter, count: scatter + count * covariance.astype(scatter.dtype),
    )


def compose(corruptions: Sequence[Corruption], image_shape: ImageShape) -> Corruption:
    """Corruptions applied one after the other with independent draws, the first one first.

    Gains multiply, and second moments nest: each is linear in the second moment of its input.

    Args:
      corruptions: at least one, all for `image_shape`.
      image_shape: (H, W, C).

    Raises:
      ValueError: if there is no corruption.
    """
    shape = check_shape(image_shape)
    corruptions = tuple(corruptions)
    if not corruptions:
        raise ValueError("compose needs at least one corruption; use identity for none")

    def corrupt(key, images):
        for sub, corruption in zip(
            jax.random.split(key, len(corruptions)), corruptions, strict=True
        ):
            images = corruption.corrupt(sub, images)
        return images

    def gain(images):
        for corruption in corruptions:
            images = corruption.gain(images)
        return images

    def second_moment(scatter, count):
        for corruption in corruptions:
            scatter = corruption.second_moment(scatter, count)
        return scatter

    return Corruption(
        " + ".join(corruption.name for corruption in corruptions),
        corrupt,
        on_images(gain, shape),
        second_moment,
    )
