"""Decode each image once."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from recon_jax.data.array_source import check_indices

Read = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

CACHE_BYTES = 2**30


def decode_once(
    read: Read,
    num_images: int,
    image_shape: tuple[int, int, int],
    name: str,
    max_bytes: int = CACHE_BYTES,
) -> Read:
    """Wraps `read` so that it is asked for each image at most once.

    Decoding runs at about a thousand images a second, far slower than training on them. The
    result is the same function of the indices, as `read` is pure. Data larger than `max_bytes`
    (ImageNet) is decoded again each time instead.

    Args:
      read: indices `(n,)` to uint8 images `(n, *image_shape)` and int32 labels `(n,)`.
      num_images: indices are in `[0, num_images)`.
      image_shape: (H, W, C).
      name: what to call the source in an error.
      max_bytes: the most memory to keep, in bytes.

    Returns:
      A function like `read`, that raises ValueError for an index out of range.
    """
    keep = num_images * math.prod(image_shape) <= max_bytes
    # np.zeros takes memory only for the pages that are written.
    images = np.zeros((num_images, *image_shape), np.uint8) if keep else None
    labels = np.zeros(num_images, np.int32)
    known = np.zeros(num_images, bool)

    def cached(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = check_indices(indices, num_images, name)
        if images is None:
            return read(indices)
        missing = np.unique(indices[~known[indices]])
        if missing.size:
            images[missing], labels[missing] = read(missing)
            # Last, so that a second thread never takes an image that is not there yet.
            known[missing] = True
        return images[indices], labels[indices]

    return cached
