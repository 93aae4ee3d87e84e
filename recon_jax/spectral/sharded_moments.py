"""Moments of images so large that D x D fits no device: its rows lie on all devices together."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from recon_jax import parallel
from recon_jax.spectral.moments import (
    Moments,
    add_labels,
    add_product,
    centre_batch,
    init_moments,
)
from recon_jax.spectral.streaming import checked_triples, require_images


def _add_rows(moments: Moments, own, offset, images, labels, mask) -> tuple[Moments, Array]:
    gather = lambda leaf: jax.lax.all_gather(leaf, parallel.AXIS, tiled=True)  # noqa: E731
    # Before they are floats: 8-bit images take a quarter of the way.
    batch = centre_batch(moments, *map(gather, (images, labels, mask)))
    columns = jax.lax.dynamic_slice_in_dim(batch.rows, offset, len(own), axis=1)
    return add_labels(moments, batch), add_product(own, columns, batch.rows)


def stream_sharded_moments(
    batches: Iterable[tuple], num_classes: int, *, dtype: DTypeLike | None = None
) -> Moments:
    """`stream_moments` with the rows of the scatter spread over the devices of all processes.

    Each batch is gathered by all devices, and every device accumulates D / n rows of S. No device,
    and no host, ever holds D x D: at 224 x 224 x 3 pixels in float32 S has 90 GB, on 64 devices 1.4
    GB each.

    Args:
      batches: as for `stream_moments`.
      num_classes: C.
      dtype: of the result; JAX's default float if None.

    Returns:
      Moments whose scatter is one global array (D, D), sharded by rows, for `sketch_scatter`. The
      other statistics are this process's own.

    Raises:
      ValueError: as `stream_moments` does, or if the number of devices does not divide D.
    """
    dtype = jnp.dtype(dtype or jnp.result_type(float))
    triples = checked_triples(batches, num_classes)
    first = next(triples, None)
    if first is None:
        require_images(None)
    size = int(np.prod(first[0].shape[1:]))
    initial = narrow_moments(size, 0, num_classes, dtype)
    moments, scatter = parallel.row_sharded_fold(
        _add_rows, initial, (size, size), dtype, itertools.chain([first], triples)
    )
    require_images(moments)
    return moments._replace(scatter=scatter)


def narrow_moments(num_features: int, columns: int, num_classes: int, dtype: DTypeLike) -> Moments:
    """Statistics of no images, with a scatter of as many columns as are asked for."""
    wide = jax.eval_shape(lambda: init_moments(num_features, num_classes, dtype))
    wide = wide._replace(scatter=jax.ShapeDtypeStruct((num_features, columns), dtype))
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), wide)


def _own_product(rows, offset, right):
    own = jnp.matmul(rows, right, precision="highest")
    return jax.lax.all_gather(own, parallel.AXIS, tiled=True)


def _own_trace(rows, offset):
    block = jax.lax.dynamic_slice_in_dim(rows, offset, len(rows), axis=1)
    return jax.lax.psum(jnp.trace(block), parallel.AXIS)


def scatter_product(
    scatter: Float[Array, "d d"], right: Float[Array, "d l"]
) -> Float[Array, "d l"]:
    """S R, in every process, of a scatter matrix that is whole or sharded by rows."""
    if parallel.is_row_sharded(scatter):
        return parallel.row_sharded_map(_own_product, scatter, right)
    return jnp.matmul(scatter, right, precision="highest")


def scatter_trace(scatter: Float[Array, "d d"]) -> Float[Array, ""]:
    """trace(S), in every process, of a scatter matrix that is whole or sharded by rows."""
    if parallel.is_row_sharded(scatter):
        return parallel.row_sharded_map(_own_trace, scatter)
    return jnp.trace(scatter)
