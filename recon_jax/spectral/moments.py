"""The five sufficient statistics from which every closed form of the linear theory follows.

count N, mean (D,), scatter S = sum (x - mean)(x - mean)^T (D, D), cross X Y^T (D, C) of centred
images with one-hot labels, and class counts (C,). They merge associatively, so any split of the
data over batches, devices and hosts gives the same statistics, and nothing later depends on N.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Integer, Shaped

from recon_jax import parallel
from recon_jax.checks import is_concrete

# Rows that XLA's CPU backend adds at a time. It has no product that accumulates, and the product of
# a whole D x D matrix would pass through memory that several devices share.
_PANEL = 512


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


def merge_moments(a: Moments, b: Moments) -> Moments:
    """Statistics of the union of two disjoint sets of images; associative and commutative.

    With d = mean_b - mean_a and N = N_a + N_b: mean = mean_a + d N_b / N,
    S = S_a + S_b + d d^T N_a N_b / N, and each cross moment is re-centred on the joint mean
    (Chan, Golub & LeVeque 1983).

    Args:
      a: statistics of one set.
      b: statistics of the other.

    Raises:
      ValueError: if the two differ in number of features or classes.
    """
    if a.cross.shape != b.cross.shape:
        raise ValueError(
            f"cannot merge moments of {a.cross.shape} and {b.cross.shape} (features, classes)"
        )
    count = a.count + b.count
    dtype = a.mean.dtype
    total = (count + (count == 0)).astype(dtype)  # operators alone: NumPy's float64 stays so
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


class Centred(NamedTuple):
    """One batch, ready to be added.

    Attributes:
      rows: Z (B, D); S + Z^T Z is the scatter with the batch in it.
      centre: what was subtracted (D,).
      mean: of all images, the batch included (D,).
      one_hot: labels (B, C).
    """

    rows: Float[Array, "b d"]
    centre: Float[Array, " d"]
    mean: Float[Array, " d"]
    one_hot: Float[Array, "b c"]


def centre_batch(moments: Moments, images: Array, labels: Array, mask: Array) -> Centred:
    """Centre a batch so that one product adds it to the scatter, whatever came before.

    With d = mean_batch - mean and N = N_old + N_batch, centring on mean + (1 - sqrt(N_old / N)) d
    puts the rank-one term of `merge_moments`, N_batch (N_old / N) d d^T, into Z^T Z. What is linear
    in S, such as S R or trace(S), then needs no D x D array at all.
    """
    dtype = moments.mean.dtype
    rows = images.reshape(images.shape[0], -1).astype(dtype)
    weight = mask.astype(dtype)[:, None]
    old, added = moments.count.astype(dtype), weight.sum()
    total = jnp.maximum(old + added, 1)
    step = (rows * weight).sum(0) / jnp.maximum(added, 1) - moments.mean
    centre = moments.mean + (1 - jnp.sqrt(old / total)) * step
    return Centred(
        rows=(rows - centre[None, :]) * weight,
        centre=centre,
        mean=moments.mean + (added / total) * step,
        one_hot=jax.nn.one_hot(labels, moments.num_classes, dtype=dtype) * weight,
    )


def transposed_product(left: Float[Array, "n k"], right: Float[Array, "n m"]) -> Array:
    """left^T right in full precision."""
    # The transpose behind a barrier: XLA's CPU matmul is much slower on a transposed left operand.
    left = jax.lax.optimization_barrier(left.T)
    return jnp.matmul(left, right, precision="highest")


def add_product(
    total: Float[Array, "n m"], left: Float[Array, "b n"], right: Float[Array, "b m"]
) -> Float[Array, "n m"]:
    """The sum total + left^T right, in full precision."""
    size = len(total)
    if size < 2 * _PANEL or not parallel.is_cpu():
        return total + transposed_product(left, right)
    left = jax.lax.optimization_barrier(left.T)

    def add_panel(index, total):
        rows = jax.lax.dynamic_slice_in_dim(left, index * _PANEL, _PANEL)
        panel = jax.lax.dynamic_slice_in_dim(total, index * _PANEL, _PANEL)
        panel = panel + jnp.matmul(rows, right, precision="highest")
        return jax.lax.dynamic_update_slice_in_dim(total, panel, index * _PANEL, 0)

    total = jax.lax.fori_loop(0, size // _PANEL, add_panel, total)
    last = size - size % _PANEL
    if last == size:
        return total
    return total.at[last:].add(jnp.matmul(left[last:], right, precision="highest"))


def add_labels(moments: Moments, batch: Centred) -> Moments:
    """Add a centred batch to all statistics but the scatter."""
    counts = batch.one_hot.sum(0)
    moved = moments.class_counts.astype(counts.dtype)
    cross = transposed_product(batch.rows, batch.one_hot)
    return moments._replace(
        count=moments.count + counts.sum().astype(jnp.int32),
        mean=batch.mean,
        cross=moments.cross
        + cross
        + (batch.centre - batch.mean)[:, None] * counts[None, :]
        + (moments.mean - batch.mean)[:, None] * moved[None, :],
        class_counts=moments.class_counts + counts.astype(jnp.int32),
    )


def add_batch(moments: Moments, images: Array, labels: Array, mask: Array) -> Moments:
    """Add a batch that has been checked; for use inside jit."""
    batch = centre_batch(moments, images, labels, mask)
    scatter = add_product(moments.scatter, batch.rows, batch.rows)
    return add_labels(moments, batch)._replace(scatter=scatter)


_update = jax.jit(add_batch)


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
    check_batch(images, labels, mask, moments.num_features, moments.num_classes)
    return _update(moments, images, labels, mask)


def check_batch(images, labels, mask, num_features: int, num_classes: int) -> None:
    """Raise ValueError for a batch that does not fit; values are checked outside jit."""
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


def reduce_moments(
    moments: Moments, axis_name: str, right: Float[Array, "d l"] | None = None
) -> Moments:
    """The union over a device axis, for use under pmap: one psum for each statistic.

    mean = psum(N_i mean_i) / N; S = psum(S_i + N_i d_i d_i^T), d_i = mean_i - mean; cross likewise.

    Args:
      moments: of this device.
      axis_name: of the device axis.
      right: R (D, L), if the statistics hold S R in the place of S.
    """
    dtype = moments.mean.dtype
    weight = moments.count.astype(dtype)
    count = jax.lax.psum(moments.count, axis_name)
    mean = jax.lax.psum(weight * moments.mean, axis_name) / jnp.maximum(count, 1).astype(dtype)
    delta = moments.mean - mean
    own_counts = moments.class_counts.astype(dtype)
    other = delta if right is None else jnp.matmul(delta, right, precision="highest")
    return Moments(
        count=count,
        mean=mean,
        scatter=jax.lax.psum(moments.scatter + weight * delta[:, None] * other[None, :], axis_name),
        cross=jax.lax.psum(moments.cross + delta[:, None] * own_counts[None, :], axis_name),
        class_counts=jax.lax.psum(moments.class_counts, axis_name),
    )


def scale_moments(moments: Moments, scale: ArrayLike) -> Moments:
    """The statistics of images multiplied by `scale`: a scalar, or one factor a pixel (D,).

    The normalisations that are linear in the images need no second pass: with the factor
    1 / sqrt(trace(S) / (N D)) the images have one global standard deviation of 1.

    Args:
      moments: of the images before.
      scale: by which pixels are multiplied.
    """
    scale = jnp.broadcast_to(jnp.asarray(scale, moments.mean.dtype), moments.mean.shape)
    return moments._replace(
        mean=moments.mean * scale,
        scatter=moments.scatter * scale[:, None] * scale[None, :],
        cross=moments.cross * scale[:, None],
    )


def global_std(moments: Moments) -> Float[Array, ""]:
    """One standard deviation over all pixels of the centred images: sqrt(trace(S) / (N D)).

    Args:
      moments: of at least one image.
    """
    return jnp.sqrt(jnp.trace(moments.scatter) / (moments.count * moments.num_features))


def pixel_std(moments: Moments) -> Float[Array, " d"]:
    """Standard deviation of every pixel over the images: sqrt(diag(S) / N).

    Args:
      moments: of at least one image.
    """
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
