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
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.linalg import is_concrete

ImageShape = tuple[int, int, int]


class Corruption(NamedTuple):
    """A random map T of centred images and its exact moments.

    Attributes:
      name: for tables and figures.
      corrupt: (key, images) -> images of the same shape, (N, H, W, C) or (N, D), independent draws
        for every image.
      gain: images -> E[T(images)], linear in the images, same shapes.
      second_moment: (scatter (D, D), count N) -> sum_n E[T(x_n) T(x_n)^T] (D, D).
    """

    name: str
    corrupt: Callable[[Array, Array], Array]
    gain: Callable[[Array], Array]
    second_moment: Callable[[Array, ArrayLike], Array]


def _check_shape(image_shape: Sequence[int]) -> ImageShape:
    shape = tuple(int(side) for side in image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"image_shape must be (height, width, channels), got {image_shape}")
    return shape


def _check_range(name: str, value: ArrayLike, low: float, high: float) -> None:
    if is_concrete(value) and not bool(np.all((np.asarray(value) >= low) & (value < high))):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}), got {value}")


def _number(value: ArrayLike) -> str:
    return f"{float(value):g}" if is_concrete(value) else "traced"


def _on_images(fn: Callable[[Array], Array], image_shape: ImageShape):
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
    """No corruption: T(x) = x, G = I, second moment S. Denoising becomes PCA."""
    shape = _check_shape(image_shape)
    return Corruption(
        name="none",
        corrupt=lambda key, images: _on_images(lambda x: x, shape)(images),
        gain=_on_images(lambda x: x, shape),
        second_moment=lambda scatter, count: scatter,
    )


def gaussian(stddev: ArrayLike, image_shape: ImageShape) -> Corruption:
    """Isotropic Gaussian noise: T(x) = x + e, e ~ N(0, stddev^2 I). Second moment S + N stddev^2 I.

    Args:
      stddev: standard deviation in the units of the images, >= 0.
      image_shape: (H, W, C).
    """
    shape = _check_shape(image_shape)
    _check_range("stddev", stddev, 0, math.inf)

    def second_moment(scatter, count):
        return scatter + jnp.diag(jnp.full(scatter.shape[:1], count * stddev**2, scatter.dtype))

    return Corruption(
        name=f"gaussian({_number(stddev)})",
        corrupt=lambda key, images: (
            images + stddev * jax.random.normal(key, images.shape, images.dtype)
        ),
        gain=_on_images(lambda x: x, shape),
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
    shape = _check_shape(image_shape)
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
        gain=_on_images(lambda x: x, shape),
        second_moment=lambda scatter, count: scatter + count * covariance.astype(scatter.dtype),
    )


def patch_index(
    patch_size: int | tuple[int, int], image_shape: ImageShape, *, per_channel: bool = False
) -> np.ndarray:
    """Which patch every scalar of the flattened image belongs to: (D,) integers from 0.

    Args:
      patch_size: side of a square patch, or (height, width), dividing the image.
      image_shape: (H, W, C).
      per_channel: if True every channel is masked on its own; else a patch covers all channels.

    Raises:
      ValueError: if the patch does not divide the image.
    """
    height, width, channels = _check_shape(image_shape)
    sides = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    for side, length, name in zip(sides, (height, width), ("height", "width"), strict=True):
        if side < 1 or length % side:
            divisors = ", ".join(str(d) for d in range(1, length + 1) if length % d == 0)
            raise ValueError(
                f"patch_size={side} does not divide image {name} {length}; choose one of {divisors}"
            )
    rows, columns = height // sides[0], width // sides[1]
    y, x, c = np.indices((height, width, channels))
    index = (y // sides[0]) * columns + x // sides[1]
    return (index + per_channel * rows * columns * c).reshape(-1)


def within_patches(scatter: Float[Array, "d d"], index: np.ndarray) -> Float[Array, "d d"]:
    """S o B: the entries of the scatter between scalars of one patch, zero elsewhere."""
    return jnp.where(index[:, None] == index[None, :], scatter, 0)


def _masked(keep_patches, index):
    """Corruption sampler from a sampler of kept patches (key, (N,)) -> (N, P) booleans."""

    def corrupt(key, images):
        keep = keep_patches(key, images.shape[0])[:, index]
        return images * keep.reshape(images.shape).astype(images.dtype)

    return corrupt


def _patch_name(kind: str, ratio: ArrayLike, patch_size: int | tuple[int, int]) -> str:
    sides = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
    return f"{kind}({_number(ratio)}, {sides[0]}x{sides[1]})"


def patch_mask(
    ratio: ArrayLike,
    patch_size: int | tuple[int, int],
    image_shape: ImageShape,
    *,
    per_channel: bool = False,
) -> Corruption:
    """Every patch is dropped independently with probability `ratio`; dropped pixels become 0.

    With q = 1 - ratio and B_ij = 1 where pixels i and j share a patch: G = q I and second moment
    S o (q^2 + q (1 - q) B).

    Args:
      ratio: probability that a patch is dropped, in [0, 1).
      patch_size: side in pixels, or (height, width); must divide the image.
      image_shape: (H, W, C).
      per_channel: mask every channel on its own; by default a patch covers all channels together.

    Raises:
      ValueError: if the ratio is out of range or the patch does not divide the image.
    """
    shape = _check_shape(image_shape)
    _check_range("ratio", ratio, 0, 1)
    index = patch_index(patch_size, shape, per_channel=per_channel)
    keep = 1 - ratio

    def second_moment(scatter, count):
        return keep**2 * scatter + keep * ratio * within_patches(scatter, index)

    def keep_patches(key, count):
        return jax.random.bernoulli(key, keep, (count, int(index.max()) + 1))

    return Corruption(
        name=_patch_name("patch_mask", ratio, patch_size),
        corrupt=_masked(keep_patches, index),
        gain=_on_images(lambda x: keep * x, shape),
        second_moment=second_moment,
    )


def pixel_mask(
    ratio: ArrayLike, image_shape: ImageShape, *, per_channel: bool = False
) -> Corruption:
    """Every pixel is dropped independently with probability `ratio`: patches of one pixel.

    See `patch_mask`; with `per_channel` every scalar is dropped on its own.
    """
    masked = patch_mask(ratio, 1, image_shape, per_channel=per_channel)
    return masked._replace(name=f"pixel_mask({_number(ratio)})")


def num_kept(ratio: float, num_patches: int) -> int:
    """How many of `num_patches` patches stay at a drop ratio, as in MAE: round((1 - ratio) P)."""
    return round((1 - ratio) * num_patches)


def patch_subset(
    ratio: float, patch_size: int | tuple[int, int], image_shape: ImageShape
) -> Corruption:
    """Exactly m of the P patches are kept, a random subset for every image, as in MAE.

    m = round((1 - ratio) P), G = (m / P) I, second moment q2 S + (q - q2) S o B with q = m / P and
    q2 = m (m - 1) / (P (P - 1)).

    Args:
      ratio: fraction of patches dropped, in [0, 1); at least one patch must remain.
      patch_size: side in pixels, or (height, width); must divide the image into 2 patches or more.
      image_shape: (H, W, C).

    Raises:
      ValueError: if the ratio is out of range, the patch does not divide the image, there is only
        one patch, or no patch would be kept.
    """
    shape = _check_shape(image_shape)
    if not is_concrete(ratio):
        raise ValueError(
            "patch_subset needs a concrete ratio: the number of kept patches is static"
        )
    _check_range("ratio", ratio, 0, 1)
    index = patch_index(patch_size, shape)
    patches = int(index.max()) + 1
    kept = num_kept(float(ratio), patches)
    if patches < 2 or kept < 1:
        raise ValueError(
            f"ratio={ratio} keeps {kept} of {patches} patches; at least 1 of at least 2 must remain"
        )
    q, q2 = kept / patches, kept * (kept - 1) / (patches * (patches - 1))

    def keep_patches(key, count):
        order = jnp.argsort(jax.random.uniform(key, (count, patches)), axis=1)
        return jnp.argsort(order, axis=1) < kept

    return Corruption(
        name=_patch_name("patch_subset", ratio, patch_size),
        corrupt=_masked(keep_patches, index),
        gain=_on_images(lambda x: q * x, shape),
        second_moment=lambda scatter, count: (
            q2 * scatter + (q - q2) * within_patches(scatter, index)
        ),
    )


def linear(name: str, apply: Callable[[Array], Array], image_shape: ImageShape) -> Corruption:
    """A deterministic linear map T x = A x: G = A, second moment A S A^T.

    Args:
      name: for tables.
      apply: x -> A x on images (..., H, W, C), keeping the shape.
      image_shape: (H, W, C).
    """
    gain = _on_images(apply, _check_shape(image_shape))
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

    The kernel exp(-d^2 / (2 stddev^2)) is renormalised at the border over the pixels inside.

    Args:
      stddev: of the kernel in pixels, > 0.
      image_shape: (H, W, C).
      noise: standard deviation of the added isotropic noise, >= 0.
    """
    shape = _check_shape(image_shape)
    if not stddev > 0:
        raise ValueError(f"stddev must be positive, got {stddev}; use identity for no blur")

    def kernel(length):
        offset = np.subtract.outer(np.arange(length), np.arange(length)) / stddev
        weights = np.exp(-0.5 * offset**2)
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
    shape = _check_shape(image_shape)
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
    """
    shape = _check_shape(image_shape)
    if shape[2] != 3:
        raise ValueError(f"grayscale needs 3 channels, the images have {shape[2]}")
    weights = np.array([0.299, 0.587, 0.114])

    def apply(images):
        luminance = (images * weights.astype(images.dtype)).sum(-1, keepdims=True)
        return jnp.broadcast_to(luminance, images.shape)

    return _with_noise(linear("grayscale", apply, shape), noise, shape)


def compose(corruptions: Sequence[Corruption], image_shape: ImageShape) -> Corruption:
    """Corruptions applied one after the other with independent draws, the first one first.

    Gains multiply, and second moments nest: each is linear in the second moment of its input.

    Args:
      corruptions: at least one, all for `image_shape`.
      image_shape: (H, W, C).
    """
    shape = _check_shape(image_shape)
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
        _on_images(gain, shape),
        second_moment,
    )
