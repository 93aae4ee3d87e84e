"""What a trained network does on a dataset: metrics over it, and its outputs image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from recon_jax import parallel
from recon_jax.training.metrics import compute_metrics, merge_metrics
from recon_jax.training.state import TrainState

Evaluate = Callable[[TrainState, Iterable[Any]], dict[str, float]]


def make_evaluate(metrics_fn: Callable[[TrainState, Any], Mapping[str, tuple]]) -> Evaluate:
    """Compile evaluate(state, batches) -> means over all images that are not masked.

    Args:
      metrics_fn: (state, batch) -> {name: (total, weight)}, a pure function; see
        `classification_metrics`.

    Returns:
      The function. Batches, this process's share of each, are split over the devices; any split of
      the images into batches gives the same means, up to the rounding of float32 sums within a
      batch. With several processes all call it, with the same number of batches.
    """

    def summed(state, batch):
        return jax.lax.psum(dict(metrics_fn(state, batch)), parallel.AXIS)

    compiled = parallel.data_parallel(summed, donate=False)

    def evaluate(state: TrainState, batches: Iterable[Any]) -> dict[str, float]:
        merged: dict[str, tuple] = {}
        for batch in batches:
            sums = jax.device_get(compiled(state, batch))
            # In float64 on the host, whatever the number of batches.
            merged = merge_metrics(
                merged, {name: tuple(map(float, pair)) for name, pair in sums.items()}
            )
        return compute_metrics(merged)

    return evaluate


def extract(
    fn: Callable[[Any, Any], Any], variables: Any, batches: Iterable[Any]
) -> tuple[Any, np.ndarray]:
    """Outputs of a network for every image of a dataset, in order, without padding.

    Args:
      fn: (variables, images) -> pytree of arrays with one row an image, a pure function. Keep the
        same function object to compile once.
      variables: what `fn` takes, such as `variables_of(state)`.
      batches: with images, labels and mask. With several processes, this one's share of each, and
        all of them call together.

    Returns:
      Outputs in host memory, shaped as `fn` gives them with all rows joined; labels (N,).
    """
    mapped = parallel.device_map(fn, (None, 0))
    outputs, labels = [], []
    for batch in batches:
        own = jax.device_get(mapped(variables, batch.images))
        # The processes' shares follow each other in every batch, and so do the images.
        out, found, mask = parallel.gather_rows((own, batch.labels, batch.mask))
        kept = np.asarray(mask, bool)
        outputs.append(jax.tree.map(lambda leaf, kept=kept: leaf[kept], out))
        labels.append(np.asarray(found)[kept])
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *outputs)
    return joined, np.concatenate(labels)
