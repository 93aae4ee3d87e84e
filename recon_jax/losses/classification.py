"""Losses of logits against labels, one number an image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Bool, Float, Integer


def check_label_smoothing(label_smoothing: float) -> None:
    """Raise ValueError unless 0 <= label_smoothing < 1."""
    if not 0 <= label_smoothing < 1:
        raise ValueError(
            f"label_smoothing={label_smoothing} must lie in [0, 1); 0 trains on the labels alone"
        )


def cross_entropy(
    logits: Float[Array, "n c"],
    labels: Integer[ArrayLike, " n"],
    *,
    label_smoothing: float = 0.0,
) -> Float[Array, " n"]:
    """-sum_c t_c log softmax(logits)_c in nats, with targets t = (1 - s) one-hot label + s / C.

    Args:
      logits: (N, C).
      labels: class indices (N,) in 0 .. C - 1.
      label_smoothing: s, in [0, 1); 0 gives the negative log-likelihood of the label.

    Raises:
      ValueError: if s is out of range.

    Source: the smoothing, Szegedy et al. 2016 (arXiv 1512.00567), section 7.
    """
    check_label_smoothing(label_smoothing)
    labels = jnp.asarray(labels)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    if not label_smoothing:
        return loss
    spread = -jax.nn.log_softmax(logits, axis=1).mean(1)
    return (1 - label_smoothing) * loss + label_smoothing * spread


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
    """Whether the largest logit, the first of equal ones, is that of the label.

    Args:
      logits: (N, C).
      labels: class indices (N,) in 0 .. C - 1.
    """
    return jnp.argmax(logits, 1) == jnp.asarray(labels)


LABEL_LOSSES = {"cross_entropy": cross_entropy, "one_hot_error": one_hot_error}
