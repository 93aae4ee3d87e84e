"""Losses of reconstructions against images, one number an image."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float


def squared_error(
    reconstruction: Float[Array, "n ..."], images: Float[Array, "n ..."]
) -> Float[Array, " n"]:
    """Mean over pixels and channels of (reconstruction - image)^2.

    Args:
      reconstruction: (N, H, W, C) or (N, D).
      images: of the same shape and range.
    """
    return jnp.square(reconstruction - images).reshape(len(images), -1).mean(1)
