"""What every audit is compared with: pixels, PCA, the supervised closed form, untrained."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from recon_jax import spectral
from recon_jax.audit.encoders import Encoder, fresh_encoder
from recon_jax.audit.labels import label_fault
from recon_jax.audit.subjects import Subjects, reduce_images

PIXELS = "pixels"


def pixel_encoder(subjects: Subjects) -> Encoder:
    """Images as they are, or reduced as those whose spectrum is known, (N, H W C).

    Args:
      subjects: the images.
    """
    return Encoder(PIXELS, functools.partial(_flatten, subjects.pixel_shape))


def pca_encoder(subjects: Subjects, dimension: int) -> Encoder:
    """The reconstruction-optimal linear encoder: the first principal components of the pixels.

    Args:
      subjects: whose training images the components are of.
      dimension: how many, at least 1; no more are taken than have variance.
    """
    dimension = min(dimension, subjects.directions)
    return _linear_encoder(f"PCA of {dimension}", subjects, subjects.spectrum.vectors, dimension)


def supervised_encoder(subjects: Subjects) -> Encoder:
    """The linear encoder of least squared error on the labels: reduced-rank regression.

    It has C - 1 dimensions, C the number of classes of the training images, beyond which the labels
    gain nothing: `spectral.joint_encoders` without any weight of reconstruction, on the training
    images alone. Nothing keeps it from overfitting where pixels outnumber images.

    Args:
      subjects: with labels, for which `label_fault` finds nothing.
    """
    encoders = spectral.joint_encoders(subjects.moments, 0.0, spectrum=subjects.spectrum)
    dimension = min(len(np.unique(subjects.train_labels)) - 1, subjects.directions)
    return _linear_encoder("supervised closed form", subjects, encoders.vectors, dimension)


def random_encoders(encoder: Encoder, seeds: tuple[int, ...]) -> list[Encoder]:
    """The architecture of an encoder with random weights, one for each seed.

    Args:
      encoder: with `fresh`.
      seeds: of the weights.
    """
    return [fresh_encoder(encoder, seed) for seed in seeds]


def _linear_encoder(name: str, subjects: Subjects, vectors, dimension: int) -> Encoder:
    weights = jnp.asarray(vectors[:, :dimension], jnp.float32)
    mean = jnp.asarray(subjects.spectrum.mean, jnp.float32)
    return Encoder(name, functools.partial(_project, subjects.pixel_shape, weights, mean))


def _flatten(pixel_shape, images):
    return reduce_images(images, pixel_shape).reshape(len(images), -1)


def _project(pixel_shape, weights, mean, images):
    centred = _flatten(pixel_shape, images) - mean[None, :]
    return jnp.matmul(centred, weights, precision="highest")


def _pixels(subjects, encoder, dimension, seeds):
    return [pixel_encoder(subjects)], ""


def _pca(subjects, encoder, dimension, seeds):
    return [pca_encoder(subjects, dimension)], ""


def _random(subjects, encoder, dimension, seeds):
    if encoder.fresh is None:
        return [], (
            "no random network: how to make one of the same architecture is not known; pass fresh="
            "a function from a seed to the encoder with new weights"
        )
    return random_encoders(encoder, seeds), ""


def _supervised(subjects, encoder, dimension, seeds):
    if fault := label_fault(subjects):
        return [], f"no supervised closed form: {fault}"
    return [supervised_encoder(subjects)], ""


# Name: (subjects, encoder, its dimension, seeds) -> encoders, the seeds of one row, and why there
# are none.
BASELINES: dict[str, Callable[..., tuple[list[Encoder], str]]] = {
    "pixels": _pixels,
    "pca": _pca,
    "random": _random,
    "supervised": _supervised,
}
