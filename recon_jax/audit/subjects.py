"""What encoders are audited on: training and test images, and the spectrum of their pixels."""

from __future__ import annotations

import hashlib
import math
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float, Integer, Shaped

from recon_jax import data, spectral
from recon_jax.audit.extraction import unit_images
from recon_jax.linalg import default_tolerance

LEAST_IMAGES = 10
HELD_OUT = 0.2
# Beyond it the D x D scatter of the pixels and its eigenpairs take minutes and gigabytes.
MOST_PIXELS = 2**14
_BLOCK_BYTES = 2**26  # of images in float32 at a time


class Subjects(NamedTuple):
    """Images, and what is known of their pixels; the same for all encoders.

    Attributes:
      source: facts for the report.
      train: images (N, H, W, C), uint8 or floats, in the order of `train_numbers`.
      test: images (T, H, W, C).
      train_numbers: indices of the training images in their source (N,).
      test_numbers: indices of the test images in theirs (T,).
      train_labels: classes (N,), None without labels.
      test_labels: classes (T,), None without labels.
      num_classes: 0 without labels.
      pixel_shape: of the images whose spectrum this is, see `reduce_images`: (H, W, C), or smaller.
      moments: of the training images in [0, 1], reduced to that shape.
      spectrum: of the moments.
      directions: D' eigen-directions of the pixels that have variance.
      scores: centred training images along them (N, D').
      test_scores: test images along them (T, D'), centred by the training mean.
      warnings: about the images.
    """

    source: dict[str, Any]
    train: Shaped[np.ndarray, "n h w c"]
    test: Shaped[np.ndarray, "t h w c"]
    train_numbers: Integer[np.ndarray, " n"]
    test_numbers: Integer[np.ndarray, " t"]
    train_labels: Integer[np.ndarray, " n"] | None
    test_labels: Integer[np.ndarray, " t"] | None
    num_classes: int
    pixel_shape: tuple[int, int, int]
    moments: spectral.Moments
    spectrum: spectral.Spectrum
    directions: int
    scores: Float[np.ndarray, "n d"]
    test_scores: Float[np.ndarray, "t d"]
    warnings: tuple[str, ...]

    @property
    def variance(self) -> Float[np.ndarray, " d"]:
        """Share of the variance along each direction (D',), float64."""
        values = np.asarray(self.spectrum.values[: self.directions], np.float64)
        return values / values.sum()


def gather_subjects(
    source: Any,
    test: Any,
    *,
    num_images: int | None,
    num_test_images: int | None,
    seed: int,
    most_pixels: int = MOST_PIXELS,
) -> Subjects:
    """Training and test images, drawn by a seed.

    Args:
      source: a `data.Source`, images (N, H, W, C), or (images, labels) with labels None if there
        are none.
      test: the same for the test images; None holds out a fifth of the images of `source`.
      num_images: largest number of training images; None takes all.
      num_test_images: largest number of test images; None takes all.
      seed: by which images are drawn.
      most_pixels: numbers of an image whose spectrum is computed; larger images are reduced for it.

    Returns:
      The Subjects.

    Raises:
      ValueError: if there are too few images or none vary, they cannot be read, or the two sets
        differ in shape.
    """
    source, labelled = as_source(source)
    order = data.epoch_order(source.num_images, seed=seed, epoch=0)
    if test is None:
        _require_images(source, LEAST_IMAGES, "to train and to test on")
        held_out = max(2, round(HELD_OUT * len(order)))
        test_source, test_labelled = source, labelled
        test_order, order = order[:held_out], order[held_out:]
    else:
        test_source, test_labelled = as_source(test)
        _require_images(source, LEAST_IMAGES // 2, "to train on")
        _require_images(test_source, 2, "to test on")
        _require_same_kind(source, test_source)
        test_order = data.epoch_order(test_source.num_images, seed=seed, epoch=1)
    labelled = labelled and test_labelled
    numbers, test_numbers = order[:num_images], test_order[:num_test_images]
    train, train_labels = source.read(numbers)
    test_images, test_labels = test_source.read(test_numbers)
    num_classes = max(source.num_classes, test_source.num_classes) if labelled else 0
    pixel_shape = reduced_shape(source.image_shape, most_pixels)
    facts = {
        "name": source.name,
        "images": len(train),
        "test_images": len(test_images),
        "shape": [int(side) for side in source.image_shape],
        "classes": num_classes,
        "pixel_shape": list(pixel_shape),
        "digest": _digest(train, test_images, train_labels, test_labels),
    }
    moments = spectral.stream_moments(
        _batches(train, train_labels, pixel_shape), max(source.num_classes, 1)
    )
    spectrum = spectral.eigendecompose(moments)
    directions = count_directions(spectrum)
    return Subjects(
        facts,
        train,
        test_images,
        numbers,
        test_numbers,
        train_labels if labelled else None,
        test_labels if labelled else None,
        num_classes,
        pixel_shape,
        moments,
        spectrum,
        directions,
        _project(train, spectrum, directions, pixel_shape),
        _project(test_images, spectrum, directions, pixel_shape),
        (*_range_warning(train), *_reduction_warning(source, pixel_shape)),
    )


def as_source(given: Any) -> tuple[data.Source, bool]:
    """A source of what was given, and whether it has labels.

    Args:
      given: a `data.Source`, images, or (images, labels or None).

    Raises:
      ValueError: if it is none of these, or `data.from_arrays` refuses it.
    """
    if isinstance(given, data.Source):
        return given, True
    images, labels = given, None
    if isinstance(given, tuple | list) and len(given) == 2:
        images, labels = given
    if not hasattr(images, "shape"):
        raise ValueError(
            f"source is {type(given).__name__}; pass a data.Source, images (N, H, W, C), or "
            "(images, labels)"
        )
    labels_or_zeros = np.zeros(len(images), np.int32) if labels is None else np.asarray(labels)
    return data.from_arrays(np.asarray(images), labels_or_zeros), labels is not None


def count_directions(spectrum: spectral.Spectrum) -> int:
    """Eigen-directions with variance that float32 pixels tell from rounding: 16 eps of the first.

    Args:
      spectrum: of the images.
    """
    values = np.asarray(spectrum.values)
    return int(np.sum(values > default_tolerance(np.float32) * values[0]))


def _require_images(source: data.Source, least: int, purpose: str) -> None:
    if source.num_images < least:
        raise ValueError(
            f"{source.name} has {source.num_images} image(s), but {least} are needed {purpose}"
        )


def _require_same_kind(source: data.Source, test: data.Source) -> None:
    if tuple(source.image_shape) != tuple(test.image_shape):
        raise ValueError(
            f"test images have shape {tuple(test.image_shape)}, training images "
            f"{tuple(source.image_shape)}; resize one of them: open_source(..., image_size=...)"
        )


def reduced_shape(shape: tuple[int, ...], most_pixels: int) -> tuple[int, int, int]:
    """The shape (H, W, C) itself, or its sides over the least factor that leaves so few numbers.

    One pixel is the least, however many channels it has.
    """
    height, width, channels = (int(side) for side in shape)
    for factor in range(1, max(height, width) + 1):
        reduced = max(1, height // factor), max(1, width // factor), channels
        if math.prod(reduced) <= most_pixels:
            break
    return reduced


def reduce_images(images: Any, pixel_shape: tuple[int, int, int]) -> Any:
    """Images (N, H, W, C) at that shape, low-pass filtered where they shrink; itself if they fit.

    Args:
      images: arrays of NumPy or JAX, floats.
      pixel_shape: of `Subjects`.
    """
    if tuple(images.shape[1:]) == pixel_shape:
        return images
    return jax.image.resize(images, (len(images), *pixel_shape), "linear", antialias=True)


def _blocks(images: np.ndarray):
    """Rows of images that fit into memory as float32."""
    size = max(1, _BLOCK_BYTES // (4 * math.prod(images.shape[1:])))
    for start in range(0, len(images), size):
        yield slice(start, start + size)


def _batches(images: np.ndarray, labels: np.ndarray, pixel_shape: tuple[int, int, int]):
    for rows in _blocks(images):
        yield reduce_images(unit_images(images[rows]), pixel_shape), labels[rows]


def _project(
    images: np.ndarray,
    spectrum: spectral.Spectrum,
    directions: int,
    pixel_shape: tuple[int, int, int],
) -> np.ndarray:
    """Centred images along the first directions, in float32."""
    mean = np.asarray(spectrum.mean, np.float64)
    vectors = np.asarray(spectrum.vectors[:, :directions], np.float64)
    parts = []
    for rows in _blocks(images):
        block = np.asarray(reduce_images(unit_images(images[rows]), pixel_shape))
        parts.append(((block.reshape(len(block), -1) - mean) @ vectors).astype(np.float32))
    return np.concatenate(parts)


def _digest(*arrays: np.ndarray) -> str:
    """Short SHA-256 by which a comparison sees that images and labels are the same."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array))
    return found.hexdigest()[:16]


def _range_warning(images: np.ndarray) -> tuple[str, ...]:
    if images.dtype == np.uint8:
        return ()
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return ()
    return (
        f"pixels run from {low:.3g} to {high:.3g}, not within 0 to 1: the augmentations of the "
        "invariance add brightness and noise in units of pixels in [0, 1]",
    )


def _reduction_warning(source: data.Source, pixel_shape: tuple[int, int, int]) -> tuple[str, ...]:
    shape = tuple(int(side) for side in source.image_shape)
    if shape == pixel_shape:
        return ()
    return (
        f"large images: the encoder sees {shape[0]}x{shape[1]} pixels, but the spectrum, and the "
        f"baselines pixels, PCA and supervised closed form, are of images reduced to "
        f"{pixel_shape[0]}x{pixel_shape[1]}",
    )
