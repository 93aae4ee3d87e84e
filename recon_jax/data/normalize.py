"""Three ways to bring pixels to a common scale, fitted on training images in one pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Shaped

from recon_jax.data.batches import Batch

NORMALIZATIONS = ("unit", "global", "per_image")

_EPSILON = 1e-6


class Normalization(NamedTuple):
    """Result = (x - mean) / scale, x being pixels in [0, 1] or, for "per_image", standardised."""

    name: str
    """One of `NORMALIZATIONS`."""
    mean: np.ndarray
    """(H, W, C) float64; (1, 1, 1) for "unit"."""
    scale: float
    """A number; or an array that broadcasts against images (..., H, W, C), as of channels."""


class _Sums(NamedTuple):
    """Count, mean image (float64), and the sum of squared differences from it, over all pixels."""

    count: int
    mean: np.ndarray
    scatter: float


def fit_normalization(name: str, batches: Iterable[Batch]) -> Normalization:
    """Fits a normalisation to training images, in one pass, in float64.

      "unit": x.
      "global": (x - mean image) / s, with s^2 the mean over images, pixels and channels of
        (x - mean image)^2.
      "per_image": x / (1e-6 + std(x)) - (the mean image of these), std(x) being that of the image
        over its pixels and channels.

    x is uint8 / 255, or a floating-point image as it is. Standard deviations are the population's.

    Args:
      name: one of `NORMALIZATIONS`.
      batches: training images, all of them: on several processes, those of all processes. Rows with
        mask False do not count. "unit" does not look at them.

    Returns:
      A `Normalization`, for `normalize`, on train and test images alike.

    Raises:
      ValueError: an unknown name; no image; NaN or infinity; images of different shapes; for
        "global", images that are all the same.
    """
    if name not in NORMALIZATIONS:
        raise ValueError(f"normalization {name!r} is unknown; choose one of {list(NORMALIZATIONS)}")
    if name == "unit":
        return Normalization(name, np.zeros((1, 1, 1)), 1.0)
    sums = None
    for batch in batches:
        images = np.asarray(batch.images)[np.asarray(batch.mask, bool)]
        if not len(images):
            continue
        x = _unit_pixels(images, np.float64)
        if not np.isfinite(x).all():
            raise ValueError(f"normalization {name!r}: a batch of images holds NaN or infinity")
        x = _standardize(x, np) if name == "per_image" else x
        sums = _merge(sums, x)
    if sums is None:
        raise ValueError(f"normalization {name!r}: there are no images to fit it to")
    if name == "per_image":
        return Normalization(name, sums.mean, 1.0)
    scale = float(np.sqrt(sums.scatter / (sums.count * sums.mean.size)))
    if scale == 0:
        raise ValueError(
            f"normalization 'global': all {sums.count} images are the same, so their standard "
            "deviation is 0; use 'unit', or check the data"
        )
    return Normalization(name, sums.mean, scale)


def normalize(
    normalization: Normalization, images: Shaped[Array | np.ndarray, "*batch h w c"]
) -> Float32[Array | np.ndarray, "*batch h w c"]:
    """Applies a normalisation to images.

    Args:
      normalization: from `fit_normalization`.
      images: (..., H, W, C), uint8 in 0..255 or floating point; NumPy or JAX, also under jit.

    Returns:
      float32 of the same shape, NumPy for NumPy and JAX for JAX. NumPy computes in float64, JAX in
      float32: about 1e-6 of the scale apart.

    Raises:
      ValueError: another dtype, or a shape that is not the fitted one.
    """
    mean = normalization.mean
    if mean.shape != (1, 1, 1) and images.shape[-3:] != mean.shape:
        raise ValueError(
            f"images of shape {tuple(images.shape[-3:])} do not fit the normalization "
            f"{normalization.name!r}, fitted to {mean.shape}; fit it to images of this shape"
        )
    xp, dtype = (jnp, jnp.float32) if isinstance(images, jax.Array) else (np, np.float64)
    x = _unit_pixels(images, dtype)
    x = _standardize(x, xp) if normalization.name == "per_image" else x
    mean = mean.astype(dtype).reshape((1,) * (x.ndim - 3) + mean.shape)
    return ((x - mean) / dtype(normalization.scale)).astype(np.float32)


def per_image_standardize(
    images: Shaped[Array | np.ndarray, "*batch h w c"],
) -> Float32[Array | np.ndarray, "*batch h w c"]:
    """Divides each image by its own standard deviation: x / (1e-6 + std(x)).

    Nothing is subtracted. std is the population's, over the pixels and channels of the image; an
    image of one value, whose std is 0, becomes a million times that value.

    Args:
      images: (..., H, W, C), uint8 in 0..255 (divided by 255 first) or floating point.

    Returns:
      float32 of the same shape, NumPy for NumPy and JAX for JAX.

    Raises:
      ValueError: another dtype.
    """
    xp, dtype = (jnp, jnp.float32) if isinstance(images, jax.Array) else (np, np.float64)
    return _standardize(_unit_pixels(images, dtype), xp).astype(np.float32)


def _unit_pixels(images, dtype):
    if images.dtype == np.uint8:
        return images.astype(dtype) / dtype(255)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"images have dtype {images.dtype}; pass uint8 in 0..255 or floating point"
        )
    return images.astype(dtype)


def _standardize(x, xp):
    # The shift leaves std as it is, and makes that of a constant image 0 exactly, not rounding.
    shifted = x - x[..., :1, :1, :1]
    return x / (_EPSILON + xp.std(shifted, axis=(-3, -2, -1), keepdims=True))


def _merge(sums: _Sums | None, x: Float[np.ndarray, "n h w c"]) -> _Sums:
    """Adds a batch, pairwise: plain sums of squares would cancel where the mean is large."""
    mean = x.mean(axis=0)
    new = _Sums(len(x), mean, float(np.sum((x - mean) ** 2)))
    if sums is None:
        return new
    if sums.mean.shape != mean.shape:
        raise ValueError(f"batches hold images of shapes {sums.mean.shape} and {mean.shape}")
    count = sums.count + new.count
    shift = mean - sums.mean
    between = float(np.sum(shift**2)) * sums.count * new.count / count
    return _Sums(
        count, sums.mean + shift * (new.count / count), sums.scatter + new.scatter + between
    )
