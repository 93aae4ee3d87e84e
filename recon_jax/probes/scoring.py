"""Predictions of a probe, and how often they are right."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Int, Integer, Shaped

from recon_jax.checks import is_concrete
from recon_jax.features import check_features
from recon_jax.probes.linear import LinearProbe
from recon_jax.probes.mlp import MLPProbe


def predict(probe: LinearProbe | MLPProbe, features: Float[ArrayLike, "n d"]) -> Int[Array, " n"]:
    """Class of the largest logit; the lowest class among equal ones.

    Args:
      probe: a fitted LinearProbe or MLPProbe.
      features: (N, D), raw as the probe was fitted on.

    Returns:
      Class indices (N,), int32.

    Raises:
      ValueError: if the features are empty, not finite (outside jit), or of another dimension.
    """
    features = jnp.asarray(features)
    check_features(features)
    return jnp.argmax(probe.logits(features), 1).astype(jnp.int32)


def _check_lengths(scores: Array, labels: Array) -> None:
    if labels.ndim != 1 or not labels.size or scores.shape[:1] != labels.shape:
        raise ValueError(
            f"scores or predictions {scores.shape} and labels {labels.shape} must hold one entry "
            "an example, and at least one"
        )


def accuracy(
    scores: Shaped[ArrayLike, "n ..."], labels: Integer[ArrayLike, " n"]
) -> Float[Array, ""]:
    """Fraction of examples whose prediction is their label.

    Args:
      scores: logits or votes (N, C), of which the largest counts, the first among equal ones; or
        predicted classes (N,), integers.
      labels: class indices (N,).

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: if the lengths differ or are 0, or a score is not finite (outside jit).

    >>> float(accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])))
    0.5
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    if scores.ndim == 2:
        return top_k_accuracy(scores, labels, 1)
    _check_lengths(scores, labels)
    if scores.ndim != 1 or not jnp.issubdtype(scores.dtype, jnp.integer):
        raise ValueError(
            f"give logits (N, C) or integer predictions (N,), got {scores.dtype} {scores.shape}"
        )
    return jnp.mean(scores == labels)


def top_k_accuracy(
    scores: Float[ArrayLike, "n c"], labels: Integer[ArrayLike, " n"], k: int
) -> Float[Array, ""]:
    """Fraction of examples whose label is among the k largest scores.

    The rank of a label is the number of classes that score more, or as much with a lower index; so
    exactly k classes count, and k = 1 agrees with `predict`.

    Args:
      scores: logits or votes (N, C).
      labels: class indices (N,) in 0 .. C - 1.
      k: in 1 .. C.

    Returns:
      A scalar in [0, 1].

    Raises:
      ValueError: if k is out of range, the lengths differ or are 0, or a score is not finite
        (outside jit) or a label is out of range (outside jit).
    """
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    _check_lengths(scores, labels)
    if scores.ndim != 2 or not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k={k} must lie in 1 .. C for scores (N, C), got {scores.shape}")
    if is_concrete(scores, labels):
        if not bool(jnp.isfinite(scores).all()):
            raise ValueError("scores hold NaN or infinite entries; a rank among them is undefined")
        if int(labels.min()) < 0 or int(labels.max()) >= scores.shape[1]:
            raise ValueError(
                f"labels run from {int(labels.min())} to {int(labels.max())}; with "
                f"{scores.shape[1]} scores they must lie in 0 .. {scores.shape[1] - 1}"
            )
    own = jnp.take_along_axis(scores, labels[:, None], 1)
    earlier = jnp.arange(scores.shape[1])[None, :] < labels[:, None]
    rank = jnp.sum((scores > own) | ((scores == own) & earlier), 1)
    return jnp.mean(rank < k)
