"""Linear autoencoders at their global optimum, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import is_concrete
from recon_jax.spectral.corruptions import Corruption
from recon_jax.spectral.encoders import Encoders, denoising_encoders, joint_encoders
from recon_jax.spectral.moments import Moments


class LinearAutoencoder(NamedTuple):
    """A linear encoder with a linear decoder and classifier, all on centred images (no bias).

    Latents are encoder^T x, reconstructions decoder^T latents, scores classifier^T latents. Only
    span(encoder), encoder @ decoder and encoder @ classifier are unique. Losses are sums over
    images, labels one-hot and not centred, so that no latent at all costs N in supervision.

    Attributes:
      encoder: V (D, K).
      decoder: Z (K, D).
      classifier: W (K, C).
      values: mu (K,), descending: by how much each latent lowers the weighted total.
      loss: the weighted total at the optimum.
      reconstruction_loss: E ||Z^T V^T T(X) - X||^2, unweighted.
      supervised_loss: E ||W^T V^T T(X) - Y||^2, unweighted.
    """

    encoder: Float[Array, "d k"]
    decoder: Float[Array, "k d"]
    classifier: Float[Array, "k c"]
    values: Float[Array, " k"]
    loss: Float[Array, ""]
    reconstruction_loss: Float[Array, ""]
    supervised_loss: Float[Array, ""]


def _check(moments: Moments, rank: int, name: str, weight: ArrayLike) -> None:
    if not 1 <= rank <= moments.num_features:
        raise ValueError(f"rank must lie in 1 .. {moments.num_features} (H W C), got {rank}")
    if is_concrete(weight) and not (np.isfinite(weight) and np.asarray(weight) >= 0):
        raise ValueError(f"{name} must be finite and >= 0, got {weight}")


def _assemble(
    moments: Moments,
    encoders: Encoders,
    rank: int,
    gained_scatter: Array,
    gained_cross: Array,
    weights: tuple[ArrayLike, ArrayLike],
) -> LinearAutoencoder:
    """Heads by least squares: V^T M V = I, so they are the encoder times the targets.

    gained_scatter is G S and gained_cross G X Y^T: correlations of the corrupted input with images
    and labels.
    """
    encoder, values = encoders.vectors[:, :rank], encoders.values[:rank]
    decoder = jnp.matmul(encoder.T, gained_scatter, precision="highest")
    classifier = jnp.matmul(encoder.T, gained_cross, precision="highest")
    # With orthonormal latents each head lowers its loss by its own squared norm.
    reconstruction = jnp.trace(moments.scatter) - jnp.sum(decoder**2)
    supervised = moments.count.astype(values.dtype) - jnp.sum(classifier**2)
    loss = weights[0] * reconstruction + weights[1] * supervised
    return LinearAutoencoder(encoder, decoder, classifier, values, loss, reconstruction, supervised)


def solve_joint(
    moments: Moments, rank: int, reconstruction_weight: ArrayLike, *, tolerance: float | None = None
) -> LinearAutoencoder:
    """Global optimum of supervision plus weighted reconstruction from K linear latents.

    L = ||W^T V^T X - Y||^2 + w ||Z^T V^T X - X||^2; its minimum is
    N + w ||X||^2 - sum_{k <= K} mu_k.

    Args:
      moments: statistics of the images.
      rank: K, in 1 .. D. Columns beyond the rank of the data are zero.
      reconstruction_weight: w >= 0. At w = 0 the reconstruction is not determined for K >= C.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      The LinearAutoencoder.

    Raises:
      ValueError: if the rank or the weight is out of range, or the images do not vary.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), joint optimum.
    """
    _check(moments, rank, "reconstruction_weight", reconstruction_weight)
    encoders = joint_encoders(moments, reconstruction_weight, tolerance=tolerance)
    weights = (reconstruction_weight, 1.0)
    return _assemble(moments, encoders, rank, moments.scatter, moments.cross, weights)


def solve_denoising(
    moments: Moments,
    corruption: Corruption,
    rank: int,
    supervision_weight: ArrayLike = 0.0,
    *,
    tolerance: float | None = None,
) -> LinearAutoencoder:
    """Global optimum of a linear denoising autoencoder with K latents.

    L = E ||Z^T V^T T(X) - X||^2 + w E ||W^T V^T T(X) - Y||^2; its minimum is
    ||X||^2 + w N - sum_{k <= K} mu_k. The classifier is the least-squares one on the latents even
    when w = 0.

    Args:
      moments: statistics of the images.
      corruption: T.
      rank: K, in 1 .. D. Columns beyond the rank of the corrupted data are zero.
      supervision_weight: w >= 0.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      The LinearAutoencoder.

    Raises:
      ValueError: if the rank or the weight is out of range, or the images do not vary.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), denoising theorem; supervision derived.
    """
    _check(moments, rank, "supervision_weight", supervision_weight)
    encoders = denoising_encoders(
        moments, corruption, supervision_weight=supervision_weight, tolerance=tolerance
    )
    gained_scatter = corruption.gain(moments.scatter).T
    gained_cross = corruption.gain(moments.cross.T).T
    weights = (1.0, supervision_weight)
    return _assemble(moments, encoders, rank, gained_scatter, gained_cross, weights)
