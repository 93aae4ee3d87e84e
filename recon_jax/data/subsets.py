"""Part of a source, and batches that pair labelled with unlabelled images."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from recon_jax.data.array_source import Source, check_indices
from recon_jax.data.batches import Batch, run_batches


class PairedBatch(NamedTuple):
    """A labelled and an unlabelled batch of one step."""

    labelled: Batch
    unlabelled: Batch
    """Its labels are those of the source; a semi-supervised objective does not look at them."""


def source_subset(source: Source, indices: np.ndarray) -> Source:
    """The images of a source at some indices, in their order.

    Args:
      source: of N images.
      indices: `(M,)` integers in [0, N), M >= 1, each at most once, such as those of
        `probes.few_shot_split`.

    Returns:
      A `Source` of M images.

    Raises:
      ValueError: there is no index, one is out of range, or one is there twice.
    """
    indices = check_indices(indices, source.num_images, source.name)
    if not len(indices):
        raise ValueError(f"{source.name}: no indices were given; a subset needs 1 image or more")
    values, counts = np.unique(indices, return_counts=True)
    if counts.max() > 1:
        raise ValueError(
            f"{source.name}: image {values[counts.argmax()]} is in the subset {counts.max()} "
            "times; give every index once"
        )

    def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return source.read(indices[check_indices(rows, len(indices), source.name)])

    return source._replace(num_images=len(indices), read=read)


def paired_batches(
    labelled: Source,
    unlabelled: Source,
    labelled_size: int,
    unlabelled_size: int,
    *,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Callable[[int], PairedBatch]:
    """The batches of a semi-supervised run: step -> `PairedBatch`.

    Each source is visited in its own epochs (`run_batches`), so the few labelled images come round
    more often than the many unlabelled ones.

    Args:
      labelled: images whose labels are known; every class must have one.
      unlabelled: the other images.
      labelled_size: labelled images of a batch over all processes.
      unlabelled_size: unlabelled images of a batch over all processes.
      seed: decides both orders.
      process_index: in [0, process_count).
      process_count: how many processes share each batch.

    Returns:
      A function of the step, at least 0.

    Raises:
      ValueError: a class has no labelled image, or a size is out of range.
    """
    labels = labelled.read(np.arange(labelled.num_images))[1]
    missing = sorted(set(range(labelled.num_classes)) - set(labels.tolist()))
    if missing:
        names = ", ".join(labelled.label_names[k] for k in missing)
        raise ValueError(
            f"{labelled.name}: no labelled image of class {names}; label one or more of every "
            "class, as probes.few_shot_split does"
        )
    place = {"seed": seed, "process_index": process_index, "process_count": process_count}
    first = run_batches(labelled, labelled_size, **place)
    second = run_batches(unlabelled, unlabelled_size, **place)
    return lambda step: PairedBatch(first(step), second(step))
