"""Losses of logits against labels, one number an image."""

from __future__ import annotations

import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Integer


def cross_entropy(
    logits: Float[Array, "n c"], labels: Integer[ArrayLike, " n"]
) -> Float[Array, " n"]:
    """-log softmax(logits)[label], in nats.

    Args:
      logits: (N, C).
      labels: class indices (N,) in 0 .. C - 1.
    """
    return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels))


def one_hot_error(
    logits: Float[Array, "n c"], labels: Integer[ArrayLike, " n"]
) -> Float[Array, " n"]:
    """Mean over the C outputs of (logits - one-hot label)^2, the loss of the linear theory.

    Args:
      logits: (N, C).
      labels: class indices (N,) in 0 .. C - 1.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), released code from April 2024 on.
    """
    targets = jnp.asarray(labels)[:, None] == jnp.arange(logits.shape[1])[None, :]
    return jnp.square(logits - targets.astype(logits.dtype)).mean(1)


def is_correct(logits: Float[Array, "n c"], labels: Integer[ArrayLike, " n"]) -> Bool[Array, " n"]:
    """Whether the largest logit, the first of equal ones, is that of the label."""
    return jnp.argmax(logits, 1) == jnp.asarray(labels)


LABEL_LOSSES = {"cross_entropy": cross_entropy, "one_hot_error": one_hot_error}
