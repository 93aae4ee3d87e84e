"""Batches addressed by (seed, epoch, step): any of them, on any process, in any order."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from recon_jax.checks import check_integer
from recon_jax.data.array_source import Source
from recon_jax.data.prefetching import prefetch

__all__ = [
    "Batch",
    "batch_at",
    "epoch_batches",
    "epoch_order",
    "fold_steps",
    "num_steps",
    "prefetch",
    "run_batches",
]


class Batch(NamedTuple):
    """One batch, of the same shape at every step."""

    images: np.ndarray
    """(B, H, W, C), as the source gives them; 0 where padded."""
    labels: np.ndarray
    """(B,) int32; 0 where padded."""
    mask: np.ndarray
    """(B,) bool; False where padded."""


def num_steps(num_images: int, batch_size: int, drop_last: bool = False) -> int:
    """The number of batches in an epoch: N / B, rounded up, or down if `drop_last`.

    Args:
      num_images: N, at least 1.
      batch_size: B, over all processes, at least 1.
      drop_last: leave out a last batch that is not full.

    Raises:
      ValueError: a number is below 1.

    >>> num_steps(1000, batch_size=256), num_steps(1000, batch_size=256, drop_last=True)
    (4, 3)
    """
    check_integer("num_images", num_images, 1)
    check_integer("batch_size", batch_size, 1)
    return num_images // batch_size if drop_last else -(-num_images // batch_size)


def fold_steps(
    num_images: int, num_folds: int, batch_size: int, multiple: int = 1
) -> tuple[int, list[range]]:
    """Deals the steps of an epoch out to folds: none is empty, and no two differ by over a batch.

    Args:
      num_images: N.
      num_folds: F, in [1, N].
      batch_size: the largest allowed.
      multiple: what the size must be a multiple of, such as the number of devices.

    Returns:
      The batch size to use, at most `batch_size` (or `multiple`), and for each fold its steps f,
      f + F, f + 2 F ...

    Raises:
      ValueError: a number is below 1, or there are more folds than images, or than batches of
        `multiple` images.
    """
    check_integer("num_folds", num_folds, 1)
    check_integer("batch_size", batch_size, 1)
    if num_images < num_folds:
        raise ValueError(f"{num_images} image(s) cannot make num_folds={num_folds}; use fewer")
    per_fold = num_steps(num_images, num_folds * batch_size)
    # The second keeps a fold from being empty where folds hold but one batch each.
    size = min(num_steps(num_images, num_folds * per_fold), num_images // num_folds)
    size = max(size - size % multiple, multiple)
    steps = num_steps(num_images, size)
    if steps < num_folds:
        raise ValueError(
            f"{num_images} images in batches of {size} or more, which {multiple} devices share, "
            f"cannot make num_folds={num_folds}; use at most {steps}"
        )
    return size, [range(fold, steps, num_folds) for fold in range(num_folds)]


@functools.lru_cache(maxsize=4)
def epoch_order(num_images: int, *, seed: int, epoch: int, shuffle: bool = True) -> np.ndarray:
    """The order in which an epoch visits the images.

    Args:
      num_images: N, at least 1.
      seed: in [0, 2**64).
      epoch: in [0, 2**64); each has an order of its own.
      shuffle: False for 0, 1, ..., N - 1.

    Returns:
      A permutation of 0..N-1, int64 `(N,)`, read-only; it depends on the arguments alone.

    Raises:
      ValueError: a number is below its range.
    """
    check_integer("num_images", num_images, 1)
    check_integer("seed", seed, 0)
    check_integer("epoch", epoch, 0)
    order = np.arange(num_images)
    if shuffle:
        np.random.Generator(np.random.Philox(key=[seed, epoch])).shuffle(order)
    # The array is shared by all callers.
    order.flags.writeable = False
    return order


def batch_at(
    source: Source,
    *,
    step: int,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    process_index: int = 0,
    process_count: int = 1,
) -> Batch:
    """One process's share of the batch of one step.

    Process i of P gets rows [i B / P, (i + 1) B / P) of the batch of B that one process alone would
    get, so the processes together train on the same images however many they are.

    Args:
      source: where the images come from.
      step: within the epoch, in [0, num_steps(N, B)).
      batch_size: B, over all processes; a multiple of `process_count`.
      seed: with `epoch`, decides the order.
      epoch: from 0.
      shuffle: False for the order of the source.
      process_index: i, in [0, P).
      process_count: P.

    Returns:
      A `Batch` of B / P rows, the last ones padding if the images do not fill the last batch.

    Raises:
      ValueError: an argument is out of range, or the source gives images of another shape than it
        says.
    """
    _check_processes(batch_size, process_index, process_count)
    steps = num_steps(source.num_images, batch_size)
    if not 0 <= step < steps:
        raise ValueError(
            f"step={step} is outside the epoch, which has steps 0..{steps - 1} "
            f"({source.num_images} images in batches of {batch_size})"
        )
    order = epoch_order(source.num_images, seed=seed, epoch=epoch, shuffle=shuffle)
    rows = batch_size // process_count
    start = step * batch_size + process_index * rows
    # Sorting would suit the disk better, but the rows must not depend on the process count.
    images, labels = source.read(order[start : start + rows])
    if images.shape[1:] != tuple(source.image_shape):
        raise ValueError(
            f"{source.name}: images of shape {images.shape[1:]} were read at step {step}, but the "
            f"source says {tuple(source.image_shape)}; every image of a source must have one shape"
        )
    return _pad(images, labels, rows)


def epoch_batches(
    source: Source,
    batch_size: int,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    drop_last: bool = False,
) -> Iterator[Batch]:
    """The batches of one epoch, each image once: `batch_at` for one step after another.

    Args:
      source: where the images come from.
      batch_size: over all processes; a multiple of `process_count`.
      seed: with `epoch`, decides the order.
      epoch: from 0.
      shuffle: False for the order of the source.
      start_step: the first step, to resume within an epoch.
      process_index: in [0, process_count).
      process_count: how many processes share each batch.
      drop_last: leave out a last batch that is not full.

    Returns:
      An iterator of `Batch`.

    Raises:
      ValueError: an argument is out of range; raised here, before the first batch.
    """
    _check_processes(batch_size, process_index, process_count)
    steps = num_steps(source.num_images, batch_size, drop_last)
    # start_step = steps is what a run resumes with when it stopped between two epochs.
    if not 0 <= start_step <= steps:
        raise ValueError(f"start_step={start_step} must be in 0..{steps}, the steps of this epoch")
    return (
        batch_at(
            source,
            step=step,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            shuffle=shuffle,
            process_index=process_index,
            process_count=process_count,
        )
        for step in range(start_step, steps)
    )


def run_batches(
    source: Source,
    batch_size: int,
    *,
    seed: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Callable[[int], Batch]:
    """The batches of a whole training run: step s -> batch, with s counted over all epochs.

    Epochs have floor(N / B) full batches, each epoch in an order of its own; what remains of an
    order is left out, as `drop_last` does.

    Args:
      source: where the images come from.
      batch_size: B, over all processes, in [1, N]; a multiple of `process_count`.
      seed: decides the orders.
      process_index: in [0, process_count).
      process_count: how many processes share each batch.

    Returns:
      A function of the step, at least 0.

    Raises:
      ValueError: the batch size is out of range; raised here, before the first batch.
    """
    _check_processes(batch_size, process_index, process_count)
    steps = num_steps(source.num_images, batch_size, drop_last=True)
    if not steps:
        raise ValueError(
            f"batch_size={batch_size} is more than the {source.num_images} images; choose at most "
            f"{source.num_images}"
        )

    def batch_of(step: int) -> Batch:
        epoch, within = divmod(step, steps)
        return batch_at(
            source,
            step=within,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            process_index=process_index,
            process_count=process_count,
        )

    return batch_of


def _pad(images: np.ndarray, labels: np.ndarray, rows: int) -> Batch:
    missing = rows - len(images)
    mask = np.arange(rows) < len(images)
    if missing:
        images = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)])
        labels = np.concatenate([labels, np.zeros(missing, labels.dtype)])
    return Batch(images, labels, mask)


def _check_processes(batch_size: int, process_index: int, process_count: int) -> None:
    check_integer("batch_size", batch_size, 1)
    check_integer("process_count", process_count, 1)
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index={process_index} must be in 0..{process_count - 1}")
    if batch_size % process_count:
        nearest = -(-batch_size // process_count) * process_count
        raise ValueError(
            f"batch_size={batch_size}, which is over all processes, does not divide among "
            f"process_count={process_count}; choose a multiple of it, such as {nearest}"
        )
