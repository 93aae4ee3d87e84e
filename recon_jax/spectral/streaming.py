"""One pass over images to their moments, on the host's BLAS or on all devices and processes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from recon_jax import parallel
from recon_jax.spectral import host_moments
from recon_jax.spectral.moments import (
    Moments,
    add_batch,
    check_batch,
    init_moments,
    reduce_moments,
)

ENGINES = ("auto", "host", "devices")


def checked_triples(batches: Iterable, num_classes: int) -> Iterator[tuple]:
    """The batches as NumPy triples (images, labels, mask); ValueError for one that does not fit."""
    num_features = None
    for batch in batches:
        images, labels, *rest = batch
        images, labels = np.asarray(images), np.asarray(labels)
        mask = np.asarray(rest[0], bool) if rest else np.ones(labels.shape, bool)
        num_features = num_features or int(np.prod(images.shape[1:]))
        check_batch(images, labels, mask, num_features, num_classes)
        yield images, labels, mask


def require_images(moments: Moments | None) -> None:
    """Raise ValueError if nothing was counted."""
    if moments is None or int(moments.count) == 0:
        raise ValueError("no images were given: the source is empty or wholly masked")


def _on_host(triples: Iterable[tuple], initial: Moments) -> Moments:
    dtype, num_classes = initial.mean.dtype, initial.num_classes
    sums = host_moments.accumulate(triples, num_classes, double=dtype == jnp.float64)
    if sums is None:
        return initial
    shift = sums.class_sums.sum(1) / sums.count
    cross = sums.class_sums - shift[:, None] * sums.class_counts[None, :]
    return Moments(
        count=jnp.asarray(sums.count, jnp.int32),
        mean=jnp.asarray(sums.pilot + shift, dtype),
        scatter=jnp.asarray(host_moments.centred_scatter(sums, shift, dtype)),
        cross=jnp.asarray(cross, dtype),
        class_counts=jnp.asarray(sums.class_counts, jnp.int32),
    )


def _on_devices(triples: Iterable[tuple], initial: Moments) -> Moments:
    return parallel.device_fold(add_batch, initial, triples, reduce_moments)


def fold_moments(
    batches: Iterable[tuple], num_classes: int, dtype: jnp.dtype, engine: str = "auto"
) -> Moments | None:
    """`stream_moments`, but None without a batch, and a count of 0 where all are masked.

    Raises:
      ValueError: as `stream_moments` does, but for images that are missing.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "host" and parallel.process_count() > 1:
        raise ValueError("engine='host' knows only this process; use 'devices' with several")
    triples = checked_triples(batches, num_classes)
    first = next(triples, None)
    if first is None:
        return None
    initial = init_moments(int(np.prod(first[0].shape[1:])), num_classes, dtype)
    on_host = parallel.is_single_cpu() if engine == "auto" else engine == "host"
    return (_on_host if on_host else _on_devices)(itertools.chain([first], triples), initial)


def stream_moments(
    batches: Iterable[tuple],
    num_classes: int,
    *,
    dtype: DTypeLike | None = None,
    engine: str = "auto",
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
      engine: "host", "devices", or "auto", the host's BLAS on one CPU device.

    Returns:
      The Moments of all images.

    Raises:
      ValueError: if there is no image, an image size changes between batches, a label is out of
        range, a pixel is NaN or infinite, a batch cannot be split evenly over the devices, or the
        engine is unknown, or is the host's in a run of several processes.

    >>> moments = stream_moments([(np.eye(2), np.array([0, 1]))], num_classes=2)
    >>> int(moments.count), moments.mean.tolist()
    (2, [0.5, 0.5])
    """
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    moments = fold_moments(batches, num_classes, dtype, engine)
    require_images(moments)
    return moments
