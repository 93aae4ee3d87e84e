"""Losses of reconstructions against images, one number an image."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from recon_jax.checks import is_concrete


def squared_error(
    reconstruction: Float[Array, "n ..."], images: Float[Array, "n ..."]
) -> Float[Array, " n"]:
    """Mean over pixels and channels of (reconstruction - image)^2.

    Args:
      reconstruction: (N, H, W, C) or (N, D).
      images: of the same shape and range.
    """
    return jnp.square(reconstruction - images).reshape(len(images), -1).mean(1)


def masked_squared_error(
    reconstruction: Float[Array, "n p k"],
    patches: Float[Array, "n p k"],
    mask: Bool[Array, "n p"],
    *,
    normalize: bool = False,
) -> Float[Array, " n"]:
    """Mean over the masked patches, and their pixels, of (reconstruction - patch)^2.

    With `normalize` every patch is first brought to mean 0 and variance 1:
    (x - mean) / sqrt(var + 1e-6), var over K - 1.

    Args:
      reconstruction: (N, P, K).
      patches: of the images, as `models.patchify` has them.
      mask: (N, P), True where the patch was hidden.
      normalize: the targets, not the reconstruction.

    Raises:
      ValueError: if an image has no masked patch (checked outside jit, where its loss is 0).

    Source: He et al. 2022 (arXiv 2111.06377), released code (norm_pix_loss).
    """
    if is_concrete(mask) and not np.asarray(mask).any(1).all():
        image = int(np.argmin(np.asarray(mask).any(1)))
        raise ValueError(
            f"image {image} has no masked patch, so there is no loss; mask one or more"
        )
    if normalize:
        centred = patches - patches.mean(-1, keepdims=True)
        variance = patches.var(-1, keepdims=True, ddof=1)
        patches = centred / jnp.sqrt(variance + 1e-6)
    error = jnp.square(reconstruction - patches).mean(-1)
    return jnp.where(mask, error, 0).sum(1) / jnp.maximum(mask.sum(1), 1)
