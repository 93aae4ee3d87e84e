"""A source whose images have been normalised once and are kept in memory."""

from __future__ import annotations

import numpy as np

from recon_jax.data.array_source import Source, from_arrays
from recon_jax.data.batches import epoch_batches
from recon_jax.data.normalize import Normalization, normalize


def normalized_source(
    source: Source, normalization: Normalization, batch_size: int = 1024
) -> Source:
    """The normalised images of a source, float32, in the same order, in memory.

    Args:
      source: what to read, once.
      normalization: see `fit_normalization`.
      batch_size: images read at a time.

    Returns:
      A `Source` with the name, split and labels of the original.

    Raises:
      ValueError: the images do not fit the normalisation.
    """
    batches = list(epoch_batches(source, min(batch_size, source.num_images), shuffle=False))
    images = [normalize(normalization, batch.images[batch.mask]) for batch in batches]
    labels = [batch.labels[batch.mask] for batch in batches]
    return from_arrays(
        np.concatenate(images),
        np.concatenate(labels),
        source.label_names,
        name=source.name,
        split=source.split,
    )
