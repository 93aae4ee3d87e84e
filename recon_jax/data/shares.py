"""A source dealt out to separate jobs, which know nothing of each other."""

from __future__ import annotations

import numpy as np

from recon_jax.data.array_source import Source, check_indices


def source_share(source: Source, share: int, shares: int) -> Source:
    """One of several contiguous parts that hold every image of a source exactly once.

    Share i of n holds images floor(i N / n) .. floor((i + 1) N / n) - 1, in their order.

    Args:
      source: of N images.
      share: i, in [0, n).
      shares: n, in [1, N].

    Returns:
      A `Source` that reads no image of another share.

    Raises:
      ValueError: a number is out of range.
    """
    count = source.num_images
    if not 1 <= shares <= count:
        raise ValueError(f"shares={shares} must be in 1..{count}, the images of {source.name}")
    if not 0 <= share < shares:
        raise ValueError(f"share={share} must be in 0..{shares - 1}, since shares={shares}")
    start, stop = share * count // shares, (share + 1) * count // shares

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return source.read(check_indices(indices, stop - start, source.name) + start)

    return source._replace(num_images=stop - start, read=read)
