"""The five sufficient statistics from which every closed form of the linear theory follows.

count N, mean (D,), scatter S = sum (x - mean)(x - mean)^T (D, D), cross X Y^T (D, C) of centred
images with one-hot labels, and class counts (C,). They merge associatively, so any split of the
data over batches, devices and hosts gives the same statistics, and nothing later depends on N.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Shaped

from recon_jax import parallel
from recon_jax.linalg import is_concrete
from recon_jax.spectral import _host_moments as host_moments


class Moments(NamedTuple):
    """Sufficient statistics of labelled images; a pytree, so it passes through jit and checkpoints.

    Attributes:
      count: number of images N, int32 scalar.
      mean: mean image (D,), in the units of the images.
      scatter: centred scatter matrix S (D, D), a sum over images, not divided by N.
      cross: X Y^T (D, C): for each class the sum of its centred images.
      class_counts: images of each class (C,), int32.
    """

    count: Int[Array, ""]
    mean: Float[Array, " d"]
    scatter: Float[Array, "d d"]
    cross: Float[Array, "d c"]
    class_counts: Int[Array, " c"]

    @property
    def num_features(self) -> int:
        """Number of scalars in an image, D = H W C."""
        return self.mean.shape[-1]

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.class_counts.shape[-1]


def init_moments(num_features: int, num_classes: int, dtype: DTypeLike | None = None) -> Moments:
    """Statistics of no images.

    Args:
      num_features: D = H W C, at least 1.
      num_classes: C, at least 1.
      dtype: float32 or float64; JAX's default float if None.

    Raises:
      ValueError: if a size is smaller than 1.
    """
    for name, value in (("num_features", num_features), ("num_classes", num_classes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    dtype = dtype or jnp.result_type(float)
    return Moments(
        count=jnp.zeros((), jnp.int32),
        mean=jnp.zeros((num_features,), dtype),
        scatter=jnp.zeros((num_features, num_features), dtype),
        cross=jnp.zeros((num_features, num_classes), dtype),
        class_counts=jnp.zeros((num_classes,), jnp.int32),
    )


def _batch_moments(images, labels, mask, num_classes, dtype) -> Moments:
    rows = images.reshape(images.shape[0], -1).astype(dtype)
    weight = mask.astype(dtype)[:, None]
    one_hot = jax.nn.one_hot(labels, num_classes, dtype=dtype) * weight
    mean = (rows * weight).sum(0) / jnp.maximum(weight.sum(), 1)
    centred = (rows - mean[None, :]) * weight
    # The transpose behind a barrier: XLA's CPU matmul is much slower on a transposed left operand.
    transposed = jax.lax.optimization_barrier(centred.T)
    product = lambda right: jnp.matmul(transposed, right, precision="highest")  # noqa: E731
    return Moments(
        count=mask.sum(dtype=jnp.int32),
        mean=mean,
        scatter=product(centred),
        cross=product(one_hot),
        class_counts=(jax.nn.one_hot(labels, num_classes, dtype=jnp.int32) * mask[:, None]).sum(
            0, dtype=jnp.int32
        ),
    )


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Statistics of the union of two disjoint sets of images; associative and commutative.

    With d = mean_b - mean_a and N = N_a + N_b: mean = mean_a + d N_b / N,
    S = S_a + S_b + d d^T N_a N_b / N, and each cross moment is re-centred on the joint mean
    (Chan, Golub & LeVeque 1983).

    Raises:
      ValueError: if the two differ in number of features or classes.
    """
    if a.cross.shape != b.cross.shape:
        raise ValueError(
            f"cannot merge moments of {a.cross.shape} and {b.cross.shape} (features, classes)"
        )
    count = a.count + b.count
    dtype = a.mean.dtype
    total = jnp.maximum(count, 1).astype(dtype)
    share_a, share_b = a.count.astype(dtype) / total, b.count.astype(dtype) / total
    delta = b.mean - a.mean
    shift_a, shift_b = share_b * delta, -share_a * delta  # joint mean minus own mean
    between = (a.count.astype(dtype) * share_b) * delta[:, None] * delta[None, :]
    return Moments(
        count=count,
        mean=a.mean + shift_a,
        scatter=a.scatter + b.scatter + between,
        cross=a.cross
        - shift_a[:, None] * a.class_counts[None, :].astype(dtype)
        + b.cross
        - shift_b[:, None] * b.class_counts[None, :].astype(dtype),
        class_counts=a.class_counts + b.class_counts,
    )


@jax.jit
def _update(moments, images, labels, mask):
    batch = _batch_moments(images, labels, mask, moments.num_classes, moments.mean.dtype)
    return merge_moments(moments, batch)


def update_moments(
    moments: Moments,
    images: Shaped[ArrayLike, "b ..."],
    labels: Integer[ArrayLike, " b"],
    mask: Bool[ArrayLike, " b"] | None = None,
) -> Moments:
    """Add one batch of images. Pure, jit-compatible; the update of the streamed statistic.

    Args:
      moments: statistics so far.
      images: (B, H, W, C) or (B, D), integers or floats, taken in the units they come in.
      labels: class indices (B,) in [0, C).
      mask: (B,) booleans, False for padding; padding must still hold finite numbers.

    Returns:
      The statistics of all images so far.

    Raises:
      ValueError: if the image size, or a label's range, does not fit, or a pixel is not finite
        (values are checked outside jit).
    """
    images, labels = jnp.asarray(images), jnp.asarray(labels)
    mask = jnp.ones(labels.shape, bool) if mask is None else jnp.asarray(mask)
    _check_batch(images, labels, mask, moments.num_features, moments.num_classes)
    return _update(moments, images, labels, mask)


def _check_batch(images, labels, mask, num_features: int, num_classes: int) -> None:
    features = int(np.prod(images.shape[1:]))
    if images.ndim < 2 or features != num_features:
        raise ValueError(
            f"images of shape {images.shape[1:]} have {features} scalars, but the statistics hold "
            f"{num_features}: every batch must have the same image size; resize with image_size"
        )
    if labels.shape != images.shape[:1] or mask.shape != images.shape[:1]:
        raise ValueError(
            f"labels {labels.shape} and mask {mask.shape} must both be {images.shape[:1]}, one "
            "entry an image"
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels must be integer class indices, got {labels.dtype}")
    if not is_concrete(images, labels):
        return
    seen = np.asarray(labels)
    low, high = (int(seen.min()), int(seen.max())) if len(seen) else (0, 0)
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"labels run from {low} to {high}; with num_classes={num_classes} they must lie in "
            f"[0, {num_classes - 1}]"
        )
    if jnp.issubdtype(images.dtype, jnp.floating):
        bad = np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(1))
        if bad.size:
            raise ValueError(
                f"{bad.size} images of the batch hold NaN or infinite pixels, the first at "
                f"position {bad[0]}; remove or repair them"
            )


def reduce_moments(moments: Moments, axis_name: str) -> Moments:
    """The union over a device axis, for use under pmap: one psum for each statistic.

    mean = psum(N_i mean_i) / N; S = psum(S_i + N_i d_i d_i^T), d_i = mean_i - mean; cross likewise.
    """
    dtype = moments.mean.dtype
    weight = moments.count.astype(dtype)
    count = jax.lax.psum(moments.count, axis_name)
    mean = jax.lax.psum(weight * moments.mean, axis_name) / jnp.maximum(count, 1).astype(dtype)
    delta = moments.mean - mean
    own_counts = moments.class_counts.astype(dtype)
    return Moments(
        count=count,
        mean=mean,
        scatter=jax.lax.psum(moments.scatter + weight * delta[:, None] * delta[None, :], axis_name),
        cross=jax.lax.psum(moments.cross + delta[:, None] * own_counts[None, :], axis_name),
        class_counts=jax.lax.psum(moments.class_counts, axis_name),
    )


def _checked_triples(batches: Iterable, num_classes: int) -> Iterator[tuple]:
    num_features = None
    for batch in batches:
        images, labels, *rest = batch
        images, labels = np.asarray(images), np.asarray(labels)
        mask = np.asarray(rest[0], bool) if rest else np.ones(labels.shape, bool)
        num_features = num_features or int(np.prod(images.shape[1:]))
        _check_batch(images, labels, mask, num_features, num_classes)
        yield images, labels, mask


def _stream_on_host(triples: Iterable[tuple], num_classes: int, dtype: jnp.dtype) -> Moments:
    sums = host_moments.accumulate(triples, num_classes, double=dtype == jnp.float64)
    shift = sums.class_sums.sum(1) / sums.count
    cross = sums.class_sums - shift[:, None] * sums.class_counts[None, :]
    return Moments(
        count=jnp.asarray(sums.count, jnp.int32),
        mean=jnp.asarray(sums.pilot + shift, dtype),
        scatter=jnp.asarray(host_moments.centred_scatter(sums, shift, dtype)),
        cross=jnp.asarray(cross, dtype),
        class_counts=jnp.asarray(sums.class_counts, jnp.int32),
    )


def _stream_on_devices(triples: Iterator[tuple], num_classes: int, dtype) -> Moments:
    first = next(triples, None)
    if first is None:
        raise ValueError("no images were given: the source is empty or wholly masked")

    def update(state, images, labels, mask):
        return merge_moments(state, _batch_moments(images, labels, mask, num_classes, dtype))

    initial = init_moments(int(np.prod(first[0].shape[1:])), num_classes, dtype)
    moments = parallel.device_fold(
        update, initial, itertools.chain([first], triples), reduce_moments
    )
    if int(moments.count) == 0:
        raise ValueError("no images were given: the source is empty or wholly masked")
    return moments


def stream_moments(
    batches: Iterable[tuple], num_classes: int, *, dtype: DTypeLike | None = None
) -> Moments:
    """Statistics of a stream of batches, over all devices and processes; memory independent of N.

    On one CPU device the host's BLAS accumulates in float32 blocks and float64 totals, exactly for
    8-bit images (the same to the last bit for any batch size and order). Elsewhere every device
    accumulates its share of each batch, and one collective at the end joins them.

    Args:
      batches: (images, labels) or (images, labels, mask) with images (B, H, W, C) or (B, D) in the
        units they come in, labels (B,) in [0, C), mask (B,) False for padding. `data.Batch` fits.
        With several processes, each gives its own share, the same number of batches.
      num_classes: C.
      dtype: of the result; JAX's default float if None.

    Returns:
      The Moments of all images.

    Raises:
      ValueError: if there is no image, an image size changes between batches, a label is out of
        range, a pixel is NaN or infinite, or a batch cannot be split evenly over the devices.
    """
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    triples = _checked_triples(batches, num_classes)
    stream = _stream_on_host if parallel.is_single_cpu() else _stream_on_devices
    return stream(triples, num_classes, dtype)


def scale_moments(moments: Moments, scale: ArrayLike) -> Moments:
    """The statistics of images multiplied by `scale`: a scalar, or one factor a pixel (D,).

    The normalisations that are linear in the images need no second pass: with the factor
    1 / sqrt(trace(S) / (N D)) the images have one global standard deviation of 1.
    """
    scale = jnp.broadcast_to(jnp.asarray(scale, moments.mean.dtype), moments.mean.shape)
    return moments._replace(
        mean=moments.mean * scale,
        scatter=moments.scatter * scale[:, None] * scale[None, :],
        cross=moments.cross * scale[:, None],
    )


def global_std(moments: Moments) -> Float[Array, ""]:
    """One standard deviation over all pixels of the centred images: sqrt(trace(S) / (N D))."""
    return jnp.sqrt(jnp.trace(moments.scatter) / (moments.count * moments.num_features))


def pixel_std(moments: Moments) -> Float[Array, " d"]:
    """Standard deviation of every pixel over the images: sqrt(diag(S) / N)."""
    return jnp.sqrt(jnp.diag(moments.scatter) / moments.count)


def normalizing_scale(name: str, moments: Moments) -> Array:
    """The factor, () or (D,), by which images of 0..255 are normalised, from their own statistics.

    Args:
      name: "global" (one standard deviation for all pixels), "unit" ([0, 1]) or "per_pixel" (every
        pixel's own; pixels that never vary stay zero).
      moments: of the images as they are.

    Raises:
      ValueError: for another name; "per_image" is not linear and has to come before the statistics.
    """
    factors = {
        "global": lambda: 1 / global_std(moments),
        "unit": lambda: jnp.asarray(1 / 255, moments.scatter.dtype),
        "per_pixel": lambda: 1 / jnp.maximum(pixel_std(moments), 1e-12),
    }
    if name not in factors:
        raise ValueError(f"normalisation must be one of {', '.join(factors)}, got {name!r}")
    return factors[name]()
