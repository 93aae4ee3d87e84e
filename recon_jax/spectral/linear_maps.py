"""Deterministic linear corruptions: blur, lost resolution, lost colour.

With M1 = A X and M2 = A S A^T the same closed forms answer for deblurring, super-resolution and
colourisation (derived here; the paper treats noise and masks).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from recon_jax.checks import is_concrete
from recon_jax.spectral.corruptions import (
    Corruption,
    ImageShape,
    check_shape,
    compose,
    gaussian,
    on_images,
)
from recon_jax.spectral.masks import patch_index


def linear(name: str, apply: Callable[[Array], Array], image_shape: ImageShape) -> Corruption:
    """A deterministic linear map T x = A x: G = A, second moment A S A^T.

    Args:
      name: for tables.
      apply: x -> A x on images (..., H, W, C), keeping the shape.
      image_shape: (H, W, C).
    """
    gain = on_images(apply, check_shape(image_shape))
    return Corruption(
        name=name,
        corrupt=lambda key, images: gain(images),
        gain=gain,
        # gain acts on rows: gain(S) = S A^T, and gain of its transpose A S gives A S A^T.
        second_moment=lambda scatter, count: gain(gain(scatter).T),
    )


def _with_noise(corruption: Corruption, noise: ArrayLike, image_shape: ImageShape) -> Corruption:
    if is_concrete(noise) and noise == 0:
        return corruption
    return compose((corruption, gaussian(noise, image_shape)), image_shape)


def _separable(vertical: np.ndarray, horizontal: np.ndarray, images: Array) -> Array:
    product = partial(jnp.einsum, precision="highest")
    images = product("yh,...hwc->...ywc", jnp.asarray(vertical, images.dtype), images)
    return product("xw,...ywc->...yxc", jnp.asarray(horizontal, images.dtype), images)


def blur(stddev: float, image_shape: ImageShape, *, noise: ArrayLike = 0.0) -> Corruption:
    """Gaussian blur, optionally with noise added after it: denoising becomes deblurring.

    The kernel exp(-d^2 / (2 stddev^2)), |d| <= 4 stddev, is renormalised at the border over the
    pixels inside.

    Args:
      stddev: of the kernel in pixels, > 0.
      image_shape: (H, W, C).
      noise: standard deviation of the added isotropic noise, >= 0.

    Raises:
      ValueError: if a number is out of range.
    """
    shape = check_shape(image_shape)
    if not stddev > 0:
        raise ValueError(f"stddev must be positive, got {stddev}; use identity for no blur")

    def kernel(length):
        offset = np.subtract.outer(np.arange(length), np.arange(length)) / stddev
        weights = np.where(np.abs(offset) <= 4, np.exp(-0.5 * offset**2), 0)
        return weights / weights.sum(1, keepdims=True)

    apply = partial(_separable, kernel(shape[0]), kernel(shape[1]))
    return _with_noise(linear(f"blur({stddev:g})", apply, shape), noise, shape)


def downsample(factor: int, image_shape: ImageShape, *, noise: ArrayLike = 0.0) -> Corruption:
    """Mean over factor x factor blocks, copied back: denoising becomes super-resolution.

    Args:
      factor: side of a block in pixels, >= 1; must divide height and width.
      image_shape: (H, W, C).
      noise: standard deviation of the added isotropic noise, >= 0.
    """
    shape = check_shape(image_shape)
    patch_index(factor, shape)  # refuses a factor that does not divide the image

    def means(length):
        block = np.arange(length) // factor
        return (block[:, None] == block[None, :]) / factor

    apply = partial(_separable, means(shape[0]), means(shape[1]))
    return _with_noise(linear(f"downsample({factor})", apply, shape), noise, shape)


def grayscale(image_shape: ImageShape, *, noise: ArrayLike = 0.0) -> Corruption:
    """Colour removed, the luminance copied to all channels: denoising becomes colourisation.

    Luminance 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Args:
      image_shape: (H, W, 3).
      noise: standard deviation of the added isotropic noise, >= 0.

    Raises:
      ValueError: if there are not three channels, or the noise is out of range.
    """
    shape = check_shape(image_shape)
    if shape[2] != 3:
        raise ValueError(f"grayscale needs 3 channels, the images have {shape[2]}")
    weights = np.array([0.299, 0.587, 0.114])

    def apply(images):
        luminance = jnp.einsum(
            "...c,c->...", images, weights.astype(images.dtype), precision="highest"
        )[..., None]
        return jnp.broadcast_to(luminance, images.shape)

    return _with_noise(linear("grayscale", apply, shape), noise, shape)
