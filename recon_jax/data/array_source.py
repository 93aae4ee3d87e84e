"""What a source of labelled images is, and the simplest one: arrays already in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Labelled images that are read by index.

    `read` takes indices `(n,)` in `[0, num_images)` and returns images `(n, H, W, C)`, uint8 in
    0..255 or floating point as stored, and int32 labels `(n,)`. It is a pure function of the
    indices, so any order, batch size or number of processes sees the same images.
    """

    name: str
    """The name the source was opened with."""
    split: str
    """ "train" or "test"."""
    num_images: int
    image_shape: tuple[int, int, int]
    """(H, W, C)."""
    label_names: tuple[str, ...]
    """One name a class; label `k` is called `label_names[k]`."""
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]

    @property
    def num_classes(self) -> int:
        """How many labels there are."""
        return len(self.label_names)


def from_arrays(
    images: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str] | None = None,
    *,
    name: str = "arrays",
    split: str = "train",
) -> Source:
    """Makes a source of images that are already in memory.

    The images are not copied: `read` copies the rows it returns.

    Args:
      images: `(N, H, W, C)`, or `(N, H, W)` for one channel; uint8 in 0..255, or floating point
        and finite; N >= 1.
      labels: `(N,)` integers in `[0, num_classes)`.
      label_names: one name a class; by default "0", "1", ... up to the largest label.
      name: what the source calls itself.
      split: "train" or "test".

    Returns:
      A `Source`.

    Raises:
      ValueError: a shape, dtype, length, label or pixel is not as stated above.

    >>> source = from_arrays(np.zeros((3, 8, 8), np.uint8), np.array([0, 1, 1]), ["cat", "dog"])
    >>> source.num_images, source.image_shape, source.num_classes
    (3, (8, 8, 1), 2)
    """
    images = check_images(np.asarray(images), name)
    labels = np.asarray(labels)
    if labels.ndim != 1 or len(labels) != len(images):
        raise ValueError(
            f"{name}: labels have shape {labels.shape}, but there are {len(images)} images; "
            f"pass one integer label for each image, shape ({len(images)},)"
        )
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"{name}: labels have dtype {labels.dtype}; pass integers, as from astype('int32')"
        )
    if label_names is None:
        label_names = [str(k) for k in range(int(labels.max()) + 1)]
    label_names = tuple(str(n) for n in label_names)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= len(label_names):
        raise ValueError(
            f"{name}: label {lowest if lowest < 0 else highest} is outside "
            f"0..{len(label_names) - 1}, the range that {len(label_names)} label names allow"
        )
    labels = labels.astype(np.int32)

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        indices = check_indices(indices, len(images), name)
        return images[indices], labels[indices]

    return Source(name, split, len(images), images.shape[1:], label_names, read)


def check_images(images: np.ndarray, name: str) -> np.ndarray:
    """Returns the images as `(N, H, W, C)`, or raises ValueError saying why they cannot be used."""
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{name}: images have shape {images.shape}; pass (N, H, W, C), or (N, H, W) for one "
            "channel, with at least one image and one pixel"
        )
    if images.dtype == np.uint8:
        return images
    if not np.issubdtype(images.dtype, np.floating):
        raise ValueError(
            f"{name}: images have dtype {images.dtype}; pass uint8 in 0..255 or floating point"
        )
    finite = np.isfinite(images).all(axis=(1, 2, 3))
    if not finite.all():
        raise ValueError(
            f"{name}: image {int(np.argmin(finite))} holds NaN or infinity; "
            f"{int((~finite).sum())} of {len(images)} images do; remove or repair them"
        )
    return images


def check_indices(indices: np.ndarray, num_images: int, name: str) -> np.ndarray:
    """Returns the indices as an int64 vector.

    Negative indices are refused: NumPy would wrap them to other images without a word.

    Raises:
      ValueError: the indices are not a vector of integers in `[0, num_images)`.
    """
    indices = np.asarray(indices)
    if indices.ndim != 1 or (indices.size and not np.issubdtype(indices.dtype, np.integer)):
        raise ValueError(
            f"{name}: indices have shape {indices.shape} and dtype {indices.dtype}; "
            "pass a vector of integers"
        )
    outside = indices[(indices < 0) | (indices >= num_images)]
    if outside.size:
        raise ValueError(f"{name}: image index {outside[0]} is outside 0..{num_images - 1}")
    return indices.astype(np.int64)


def balanced_subset(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Picks `limit` images, as many of each class as possible, the first of each class.

    With C classes these are the first `limit // C` of each class; what remains of `limit` goes
    to the images that come next within their class, in the original order. A class that has too
    few gives its places to the others.

    Args:
      labels: `(N,)` integers.
      limit: how many to keep, at least 1; None, or N and more, keeps all.

    Returns:
      Ascending indices `(min(limit, N),)`, so the original order stays.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    by_class = np.argsort(labels, kind="stable")
    _, counts = np.unique(labels, return_counts=True)
    place_in_class = np.empty(len(labels), np.int64)
    place_in_class[by_class] = np.concatenate([np.arange(c) for c in counts])
    return np.sort(np.argsort(place_in_class, kind="stable")[:limit])
