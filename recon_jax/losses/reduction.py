"""From losses of single images to sums that merge over batches and devices, and to means."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float, Shaped


def total_of(
    values: Shaped[Array, " n"], mask: Shaped[ArrayLike, " n"] | None = None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Sum of the values that count, and how many they are: what metrics are made of.

    Args:
      values: one number an image (N,); booleans count as 0 and 1.
      mask: False or 0 for padding, whose value is left out even if it is NaN; None counts all.

    Returns:
      (total, weight), scalars.
    """
    values = values.astype(jnp.promote_types(values.dtype, jnp.float32))
    if mask is None:
        return values.sum(), jnp.asarray(len(values), values.dtype)
    counts = jnp.asarray(mask, bool)
    return jnp.where(counts, values, 0).sum(), counts.sum(dtype=values.dtype)


def mean_of(total: tuple[Float[Array, ""], Float[Array, ""]]) -> Float[Array, ""]:
    """The mean total / weight; 0 where nothing counts, so that gradients stay finite.

    Args:
      total: (total, weight), from `total_of`.
    """
    return total[0] / jnp.maximum(total[1], 1)
