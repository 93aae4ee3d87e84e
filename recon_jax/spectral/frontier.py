"""Linear autoencoders of every rank, traded between supervision and reconstruction, on any images.

A joint optimum holds those of all smaller ranks in its first latents, so one eigenproblem a
reconstruction weight gives a whole family, and one spectrum of the data serves all weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.spectral.encoders import joint_encoders
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.spectrum import Spectrum


class NestedAutoencoder(NamedTuple):
    """Joint optima of ranks 1 .. K: the first k latents, rows and columns are the one of rank k.

    Latents are z = encoder^T (x - mean), reconstructions mean + decoder^T z, class scores
    priors + classifier^T z, the least-squares fit of one-hot labels with an intercept.

    Attributes:
      encoder: V (D, K).
      decoder: Z (K, D).
      classifier: W (K, C).
      mean: mean training image (D,).
      priors: training share of each class (C,).
    """

    encoder: Float[Array, "d k"]
    decoder: Float[Array, "k d"]
    classifier: Float[Array, "k c"]
    mean: Float[Array, " d"]
    priors: Float[Array, " c"]


def solve_nested(
    moments: Moments,
    rank: int,
    reconstruction_weight: ArrayLike,
    *,
    spectrum: Spectrum | None = None,
) -> NestedAutoencoder:
    """Optima of ||W^T V^T X - Y||^2 + w ||Z^T V^T X - X||^2 for all ranks up to K; cf. solve_joint.

    Args:
      moments: statistics of the training images.
      rank: K, in 1 .. D.
      reconstruction_weight: w >= 0.
      spectrum: of the moments, if already at hand.

    Returns:
      The NestedAutoencoder.

    Raises:
      ValueError: if the rank is out of range, or the images do not vary.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), joint optimum.
    """
    if not 1 <= rank <= moments.num_features:
        raise ValueError(f"rank must lie in 1 .. {moments.num_features} (H W C), got {rank}")
    encoders = joint_encoders(moments, reconstruction_weight, spectrum=spectrum)
    encoder = encoders.vectors[:, :rank]
    # V^T S V = I, so that least-squares heads are the encoder times the targets.
    decoder = jnp.matmul(encoder.T, moments.scatter, precision="highest")
    classifier = jnp.matmul(encoder.T, moments.cross, precision="highest")
    priors = moments.class_counts.astype(encoder.dtype) / moments.count
    return NestedAutoencoder(encoder, decoder, classifier, moments.mean, priors)


def training_errors(
    autoencoder: NestedAutoencoder, moments: Moments, ranks: Sequence[int]
) -> tuple[Float[Array, " r"], Float[Array, " r"]]:
    """Errors on the training images, from their statistics alone.

    Args:
      autoencoder: solved from these moments.
      moments: statistics of the training images.
      ranks: numbers of latents to use, each in 1 .. K.

    Returns:
      For each rank the squared error per pixel, and the squared error of the class scores per
      image, summed over classes; without latents it would be 1 - sum of the squared priors.
    """
    index = np.asarray(ranks) - 1
    gained = [jnp.cumsum(jnp.sum(head**2, 1))[index] for head in autoencoder[1:3]]
    pixels = (jnp.trace(moments.scatter) - gained[0]) / moments.num_features
    labels = moments.count * (1 - jnp.sum(autoencoder.priors**2)) - gained[1]
    return pixels / moments.count, labels / moments.count


@jax.jit
def _latents(autoencoder, images):
    rows = images.reshape(len(images), -1).astype(autoencoder.mean.dtype)
    centred = rows - autoencoder.mean[None, :]
    return centred, jnp.matmul(centred, autoencoder.encoder, precision="highest")


@jax.jit
def _sums(autoencoder, centred, latents, labels, mask):
    """Summed squared error per pixel, and number of right classes, with the latents given."""
    rank = latents.shape[1]
    product = lambda head: jnp.matmul(latents, head[:rank], precision="highest")  # noqa: E731
    error = jnp.square(product(autoencoder.decoder) - centred).mean(1)
    scores = product(autoencoder.classifier) + autoencoder.priors[None, :]
    right = jnp.argmax(scores, 1) == labels
    return jnp.where(mask, error, 0).sum(), (mask & right).sum()


def evaluate_nested(
    autoencoder: NestedAutoencoder, batches: Iterable[tuple], ranks: Sequence[int]
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, " r"]]:
    """Reconstruction error and accuracy on any images.

    Args:
      autoencoder: see `solve_nested`.
      batches: (images, labels, mask) in the units of the training images; mask False for padding.
      ranks: numbers of latents to use, each in 1 .. K.

    Returns:
      For each rank the mean squared error per pixel, not clipped to any range, and the share of
      images whose class has the largest score.

    Raises:
      ValueError: if a rank is out of range, or no image was given.
    """
    most = autoencoder.encoder.shape[1]
    if min(ranks) < 1 or max(ranks) > most:
        raise ValueError(f"ranks must lie in 1 .. {most}, got {tuple(ranks)}")
    sums, count = np.zeros((2, len(ranks))), 0
    for images, labels, mask in batches:
        labels, mask = jnp.asarray(labels), jnp.asarray(mask, bool)
        centred, latents = _latents(autoencoder, jnp.asarray(images))
        count += int(mask.sum())
        for i, rank in enumerate(ranks):
            sums[:, i] += np.asarray(
                jax.device_get(_sums(autoencoder, centred, latents[:, :rank], labels, mask))
            )
    if not count:
        raise ValueError("no images were given: the batches are empty or wholly masked")
    return sums[0] / count, sums[1] / count
